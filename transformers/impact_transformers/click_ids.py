"""The id of a click in the URLs of an event: under which names, which of several, and what is none.

https://integrations.impact.com/integration-guides/for-brands/tracking-integrations/api-online-sale/introduction
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

import msgspec

from impact_transformers.configuration import CLICK_ID_PARAMETERS
from impact_transformers.events import PageInfo
from impact_transformers.normalize import as_text, holds_email
from impact_transformers.outcome import UnusableValueError

FindClickId: TypeAlias = Callable[[PageInfo, Mapping[str, Any]], str | None]

LONGEST_CLICK_ID: Final = 64
"""https://integrations.impact.com/impact-brand/reference/the-conversion-object"""

MARKED_NAME: Final = "clickid"
MARK: Final = "irgwc=1"
"""Many networks call their id ``clickid``: it is impact.com's only beside its own mark."""

_NO_ID: Final = frozenset({"null", "undefined", "nan", "none", "0", "(not set)", "[object object]"})
_MARKED: Final = re.compile(rf"(?:^|[?&#;]){MARK}(?:[&#;]|$)", re.IGNORECASE)


def click_id(value: Any) -> str | None:
    """A click id that may be sent; what stands for none or is none is left out, never a reason to refuse the event."""
    text = None if isinstance(value, bool) else as_text(value)
    if text is None:
        return None
    problem = _problem(text)
    if problem is not None:
        raise UnusableValueError(problem)
    return text


def usable(value: Any) -> str | None:
    """As :func:`click_id`, silent about what is none."""
    try:
        return click_id(value)
    except UnusableValueError:
        return None


def _problem(text: str) -> str | None:
    if len(text) > LONGEST_CLICK_ID:
        return f"has {len(text)} characters; a click id has at most {LONGEST_CLICK_ID}"
    # {clickid}, ${CLICK_ID}: a link whose template was never filled in.
    if text.lower() in _NO_ID or "{" in text or "}" in text:
        return "stands for no click id"
    return "holds an e-mail address in clear" if holds_email(text) else None


class ClickIdFinder(msgspec.Struct, frozen=True):
    """Finds the click id of an event under the names of a destination.

    ``landing`` looks into the URLs of the event itself, ``carried`` also into that of the page before.
    """

    landing: FindClickId
    carried: FindClickId


def click_id_finder(parameters: tuple[str, ...]) -> ClickIdFinder:
    """Make the functions that find the click id in URLs, under any of these names in any letter case.

    Of several in one URL that of the first name wins. Where the names are the default ones, ``clickid`` counts beside
    ``irgwc=1``, too.
    """
    find_in = _finder_in_url(parameters)

    def landing(page: PageInfo, properties: Mapping[str, Any]) -> str | None:
        """The click id in a URL of the event itself."""
        get = properties.get
        for place in (page.url, page.search, get("url"), get("search"), get("deep_link_url")):
            if isinstance(place, str) and "=" in place:
                found = find_in(place)
                if found is not None:
                    return found
        return None

    def carried(page: PageInfo, properties: Mapping[str, Any]) -> str | None:
        """The click id in a URL of the event; else in that of the page before, when it is of the same site."""
        found = landing(page, properties)
        before = page.referrer
        if found is None and isinstance(before, str) and "=" in before:
            found = find_in(before)
            return found if found is not None and is_same_site(before, page.url) else None
        return found

    return ClickIdFinder(landing, carried)


def _finder_in_url(parameters: tuple[str, ...]) -> Callable[[str], str | None]:
    names = tuple(name.lower() for name in parameters)
    named = [(name, _pattern(name)) for name in names]
    marked = None if parameters != CLICK_ID_PARAMETERS else _pattern(MARKED_NAME)
    suspects = names if marked is None else (*names, MARKED_NAME)

    def find_in(url: str) -> str | None:
        """The first usable id of a URL; one that is none only where there is no other."""
        # A case-insensitive search of an ordinary URL costs a microsecond, a look for the names a tenth of it.
        lowered = url.lower()
        for name in suspects:
            if name in lowered:
                break
        else:
            return None
        found = [match[1] for name, pattern in named if name in lowered and (match := pattern.search(url))]
        if marked is not None and MARK in lowered and _MARKED.search(url) and (match := marked.search(url)):
            found.append(match[1])
        # Decoded once: ids are opaque and case-sensitive.
        ids = [unquote(one) for one in found]
        return next((one for one in ids if _problem(one) is None), ids[0] if ids else None)

    return find_in


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|[?&#;]){re.escape(name)}=([^&#;]+)", re.IGNORECASE)


def is_same_site(url: Any, other: Any) -> bool:
    """Whether both URLs are of one host, ``www.`` apart."""
    if isinstance(url, str) and isinstance(other, str):
        # Most are of one origin, which is seen without taking them apart.
        host_at = url.find("://") + 3
        end = url.find("/", host_at)
        if 3 < host_at < end and other.startswith(url[: end + 1]):
            return True
    hosts = [host_of(one) for one in (url, other)]
    return bool(hosts[0]) and hosts[0].removeprefix("www.") == hosts[1].removeprefix("www.")


def host_of(url: Any) -> str:
    """The host of a URL in lower case; empty where there is none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".") if isinstance(url, str) else ""
    except ValueError:
        return ""
