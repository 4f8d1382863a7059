"""The documentation as a site: complete in itself, readable without a network."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
IN_CSS = re.compile(r"(?:url\(|@import )\s*[\"']?([^\"')]+)")
LOADING = {"stylesheet", "preconnect", "preload", "icon", "modulepreload", "dns-prefetch"}
"""Relations of a ``link`` that make the browser ask for something."""


class Loaded(HTMLParser):
    """The addresses that a browser asks for by itself when it shows a page, and the text that the page has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the element loads."""
        found = {name: value or "" for name, value in attrs}
        if tag in {"script", "img", "iframe", "source", "video", "audio", "embed"}:
            self.addresses += [found[name] for name in ("src", "srcset") if found.get(name)]
        elif tag == "link" and LOADING & set(found.get("rel", "").split()):
            self.addresses.append(found.get("href", ""))

    def handle_data(self, data: str) -> None:
        """Note the text."""
        self.text += data


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """No page and no style sheet asks another host for a script, a font, a style or a picture."""
    loaded = {address for page in site.rglob("*.html") for address in Loaded(page).addresses}
    loaded |= {address for file in site.rglob("*.css") for address in IN_CSS.findall(file.read_text(encoding="utf-8"))}

    assert loaded
    assert [] == sorted(one for one in loaded if urlsplit(one).scheme not in {"", "data"} or one.startswith("//"))


def test_every_file_that_a_page_loads_is_there(site: Path) -> None:
    """The page of what is not found is served anywhere, so its addresses begin at the root: it is left out."""
    missing = set()
    for page in site.rglob("*.html"):
        for address in Loaded(page).addresses if page.name != "404.html" else []:
            if not (page.parent / unquote(urlsplit(address).path)).is_file():
                missing.add((page.relative_to(site).as_posix(), address))

    assert set() == missing


def test_the_search_needs_no_server(site: Path) -> None:
    """A page that was opened from a disk finds the index in a script, and our stand-in for the worker."""
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")

    assert index.startswith("var __index = ")
    assert "theme/iframe-worker.js" in Loaded(site / "index.html").addresses


def test_every_block_is_rendered(site: Path) -> None:
    """No fence is left in the text because the site could not read what stands behind it."""
    assert [] == [page.name for page in site.rglob("*.html") if "```" in Loaded(page).text]


def test_every_page_is_on_the_site() -> None:
    """The navigation names every page."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}

    assert [] == sorted(page for page in pages if page not in navigation)
