"""The pictures in the documentation: each in light and dark, shown, small, and found from the site."""

import re
import struct
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PICTURES = sorted((DOCS / "images").glob("*.png"))
LARGEST = 300_000
LARGEST_TOGETHER = 1_000_000
SIGNATURE = b"\x89PNG\r\n\x1a\n"
IN_MARKDOWN = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


class Shown(HTMLParser):
    """What a page shows: addresses of images and of their other versions, and what stands for them as text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.alternatives: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an image or a version of one."""
        found = dict(attrs)
        if tag == "img":
            self.addresses.append(found.get("src") or "")
            self.alternatives.append(found.get("alt") or "")
        elif tag == "source":
            self.addresses.append(found.get("srcset") or "")


def size_of(picture: Path) -> tuple[int, int]:
    """Width and height, from the file's first chunk."""
    content = picture.read_bytes()
    assert content.startswith(SIGNATURE), f"{picture.name} is no PNG"
    width, height = struct.unpack(">II", content[16:24])
    return int(width), int(height)


def files_of(page: Path, addresses: list[str]) -> set[Path]:
    """The files that addresses on a page stand for."""
    return {(page.parent / unquote(urlsplit(one).path)).resolve() for one in addresses if not urlsplit(one).scheme}


def shown_by(page: Path) -> set[Path]:
    """The files that a page in Markdown shows, for whoever reads it as it stands in the repository."""
    text = page.read_text(encoding="utf-8")
    return files_of(page, [*Shown(text).addresses, *IN_MARKDOWN.findall(text)])


def test_every_picture_is_shown_and_every_shown_one_exists() -> None:
    """None is left over and none is missing."""
    shown = set[Path]().union(*(shown_by(page) for page in DOCS.rglob("*.md")))

    assert PICTURES
    assert [] == [picture.name for picture in PICTURES if picture not in shown]
    assert [] == sorted(str(file) for file in shown if not file.is_file())


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.stem)
def test_a_picture_is_small_and_there_in_light_and_dark(picture: Path) -> None:
    """Both of the same size, so that a page does not jump when the reader's system changes."""
    stem, _, scheme = picture.stem.rpartition("-")
    other = picture.with_stem(f"{stem}-{'light' if scheme == 'dark' else 'dark'}")

    assert scheme in {"light", "dark"}
    assert size_of(picture) == size_of(other)
    assert picture.stat().st_size < LARGEST
    assert picture.read_bytes() != other.read_bytes()


def test_all_pictures_together_are_small() -> None:
    """Every clone has them."""
    assert sum(picture.stat().st_size for picture in PICTURES) < LARGEST_TOGETHER


def test_every_picture_says_in_words_what_it_shows() -> None:
    """For whoever cannot see it."""
    for page in DOCS.rglob("*.md"):
        for alternative in Shown(page.read_text(encoding="utf-8")).alternatives:
            assert len(alternative) > 40, page.name


def test_the_site_shows_every_picture(site: Path) -> None:
    """Each is on some page; that the files of a page are there is a test of the site."""
    seen = {Path(one).name for page in site.rglob("*.html") for one in Shown(page.read_text("utf-8")).addresses}

    assert {picture.name for picture in PICTURES} <= seen


def test_without_a_browser_one_line_says_what_to_install(tmp_path: Path) -> None:
    """Nothing else is needed to make the pictures anew."""
    command = [sys.executable, str(ROOT / "tools" / "make_screenshots.py")]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert "apt-get install chromium" in done.stderr
    assert len(done.stderr.splitlines()) == 1
