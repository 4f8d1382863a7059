"""Which click id of an event counts, and what is none."""

from typing import Any

import pytest

from impact_transformers.click_ids import click_id, click_id_finder, host_of, is_same_site, usable
from impact_transformers.configuration import CLICK_ID_PARAMETERS
from impact_transformers.events import PageInfo
from impact_transformers.outcome import NoticeReason, UnusableValueError

SITE = "https://shop.example.com/"


@pytest.mark.parametrize(("value", "expected"), [("C1", "C1"), (7, "7"), ("", None), (True, None), (None, None)])
def test_click_id(value: Any, expected: str | None) -> None:
    """Text and numbers are ids; nothing is none."""
    assert (expected, expected) == (click_id(value), usable(value))


@pytest.mark.parametrize(
    "value",
    [
        "null",
        "NULL",
        "undefined",
        "NaN",
        "none",
        "0",
        "(not set)",
        "{clickid}",
        "${CLICK_ID}",
        "{{ id }}",
        "x" * 65,
        "a@b.io",
    ],
)
def test_what_stands_for_none(value: str) -> None:
    """A placeholder, a template that was never filled in, text that is too long, an address: left out with a notice."""
    with pytest.raises(UnusableValueError) as caught:
        click_id(value)

    assert NoticeReason.PARAMETER_DROPPED == caught.value.reason
    assert usable(value) is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("irclickid=C2&im_ref=C1", "C1"),
        ("im_ref=null&irclickid=C2", "C2"),
        ("im_ref=null", "null"),
        ("clickid=C3", None),
        ("clickid=C3&irgwc=1", "C3"),
        ("IRGWC=1&ClickID=C3", "C3"),
        ("clickid=C3&irgwc=10", None),
        ("clickid=C3&xirgwc=1", None),
        ("clickid=C3&irgwc=1&im_ref=C1", "C1"),
        ("irgwc=1", None),
        ("q=im_ref", None),
    ],
)
def test_of_several_the_first_of_the_setting(query: str, expected: str | None) -> None:
    """The order of the names decides, not that of the URL; clickid counts beside impact.com's mark."""
    assert expected == click_id_finder(CLICK_ID_PARAMETERS).carried(PageInfo(url=f"{SITE}?{query}"), {})


@pytest.mark.parametrize(
    ("names", "query", "expected"),
    [
        (("ref", "im_ref"), "im_ref=C1&ref=C2", "C2"),
        (("ref",), "clickid=C3&irgwc=1", None),
        (("clickid",), "clickid=C3", "C3"),
    ],
)
def test_names_of_the_operator(names: tuple[str, ...], query: str, expected: str | None) -> None:
    """Where the operator names them, those and no others count."""
    assert expected == click_id_finder(names).carried(PageInfo(url=f"{SITE}?{query}"), {})


@pytest.mark.parametrize(
    ("url", "referrer", "expected"),
    [
        (SITE, f"{SITE}?im_ref=C1", "C1"),
        (SITE, "https://www.shop.example.com/?im_ref=C1", "C1"),
        (SITE, "https://other.example.com/?im_ref=C1", None),
        (None, f"{SITE}?im_ref=C1", None),
        (f"{SITE}?im_ref=C2", f"{SITE}?im_ref=C1", "C2"),
    ],
)
def test_the_page_before(url: Any, referrer: str, expected: str | None) -> None:
    """An id that only the page before had counts when that is of the same site."""
    assert expected == click_id_finder(CLICK_ID_PARAMETERS).carried(PageInfo(url=url, referrer=referrer), {})


def test_the_same_url_twice() -> None:
    """The URL of the event counts although the page before had the very same."""
    url = f"{SITE}?im_ref=C1"

    assert click_id_finder(CLICK_ID_PARAMETERS).carried(PageInfo(referrer=url), {"url": url}) == "C1"


@pytest.mark.parametrize(
    ("url", "expected"),
    [("https://Shop.Example.com:443/x", "shop.example.com"), ("https://shop.example.com./", "shop.example.com"),
     ("shop.example.com", ""), ("https://[bad", ""), (7, ""), (None, "")],
)  # fmt: skip
def test_host_of(url: Any, expected: str) -> None:
    """In lower case, without port and final dot; empty for what has none."""
    assert expected == host_of(url)


def test_no_host_is_no_site() -> None:
    """Two URLs without a host are not of the same site."""
    assert not is_same_site("", "")
