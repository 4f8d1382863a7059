"""What MkDocs needs to know about our pages: links out of the folder, words beside a block's language, wide tables."""

import re
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).parents[1] / "docs"
_LINK: Final = re.compile(r"\[([^\]]+)\]\((\.\.?/[^)#]*)(#[^)]*)?\)")
_FENCE: Final = re.compile(r"^( *```\w+) \w+$", re.MULTILINE)
WIDE: Final = frozenset(f"reference/{name}.md" for name in ("http", "parameters", "settings", "sources", "telemetry"))
"""Pages whose tables need the place of the table of contents."""


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by MkDocs for every page.

    A file of the repository that is no page is named instead of linked to. A word after a block's language
    (```` ```toml source ````) is for the tests, which run the block; the site cannot read it.
    """
    folder = (DOCS / page.file.src_uri).parent
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]

    def inside(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        return match[0] if target.is_relative_to(DOCS) else match[1]

    return _FENCE.sub(r"\1", _LINK.sub(inside, markdown))
