"""For the site: what stands in the repository outside of the pages is named there, and not linked to."""

import re
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).parents[1] / "docs"
_LINK: Final = re.compile(r"\[([^\]]+)\]\((\.\.?/[^)#]*)(#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by MkDocs for every page."""
    folder = (DOCS / page.file.src_uri).parent

    def inside(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        return match[0] if target.is_relative_to(DOCS) else match[1]

    return _LINK.sub(inside, markdown)
