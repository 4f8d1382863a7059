"""Click candidates, their keys and questions, for anything a sender may write; and what a visit changes."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from impact_plugin.config.manifest import load_manifest
from impact_transformers import (
    NO_VISIT,
    ConfigurationError,
    Decision,
    Destination,
    Question,
    Send,
    UndecodableEventError,
    Visit,
    compile_destination,
    conclude,
    decode_event,
    decode_object,
    prepare,
    transform,
)
from impact_transformers.click_ids import click_id_finder
from impact_transformers.clicks import EARLIEST_MS, LATEST_MS, clamp, milliseconds
from impact_transformers.events import PageInfo
from tests.builders import compiled

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

words = st.text(st.characters(codec="utf-8", exclude_characters="&#;= "), min_size=1, max_size=30)
garbage = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def destination(**config: Any) -> Destination:
    """A static destination."""
    found = compiled(**config)
    assert isinstance(found, Destination)
    return found


PLAIN = destination()
RULED = destination(
    trackingDomains=["go.example.com"], landingRules=["utm_medium=aff*"], referrerRules=["coupons.example.org"]
)


def question(event: dict[str, Any], to: Destination = PLAIN) -> Question | None:
    """What the event asks."""
    return prepare(decode_event(msgspec.json.encode(event)), to, event).question


def landing(url: str, **more: Any) -> dict[str, Any]:
    """A page call at that URL."""
    return {"type": "page", "messageId": "m", "anonymousId": "a", "timestamp": "2026-03-01T12:00:00Z", **more} | {
        "context": {"page": {"url": url}, **more.get("context", {})}
    }


@given(
    name=st.sampled_from(["im_ref", "irclickid", "clickid"]),
    case=st.lists(st.booleans(), min_size=9, max_size=9),
    place=st.sampled_from(["url", "search", "properties.url", "properties.search", "properties.deep_link_url"]),
    click_id=st.text("abcXYZ019-_~.", min_size=1, max_size=60),
    before=words,
)
def test_a_click_id_is_found_wherever_it_stands(
    name: str, case: list[bool], place: str, click_id: str, before: str
) -> None:
    """Any of the names, in any letter case, in any place, among other parameters; the value as it is."""
    spelt = "".join(letter.upper() if up else letter for letter, up in zip(name, case, strict=False))
    text = f"https://shop.example.com/?q={before}&{spelt}={click_id}&x=1"
    value = text.partition("?")[2] if place.endswith("search") else text
    page = PageInfo(**{place: value}) if place in {"url", "search"} else PageInfo()
    properties = {place.partition(".")[2]: value} if "." in place else {}

    assert click_id == click_id_finder(("im_ref", "irclickid", "clickid")).carried(page, properties)


@given(text=st.text(), event=st.dictionaries(st.sampled_from(["page", "referrer", "sessionId", "device"]), garbage))
def test_no_url_and_no_context_is_too_strange(text: str, event: dict[str, Any]) -> None:
    """Whatever a sender writes is a candidate or none, and asks or not; it never raises, and is the same each time."""
    written = {"type": "page", "messageId": "m", "anonymousId": "a", "context": event, "properties": {"url": text}}
    try:
        raw = msgspec.json.encode(written)
        decoded = decode_event(raw)
    except (UndecodableEventError, UnicodeEncodeError):
        return
    for to in (PLAIN, RULED):
        first, again = (prepare(decoded, to, decode_object(raw)).question for _ in range(2))

        assert first == again


@pytest.mark.parametrize(
    "url", ["", "https://shop.example.com/", "https://shop.example.com/?im_reference=1&xclickid=2"]
)
def test_ordinary_pages_are_no_candidates(url: str) -> None:
    """A parameter whose name only contains one of ours is another parameter."""
    asked = question(landing(url))

    assert asked is not None
    assert (None, None, True) == (asked.key, asked.click_id, asked.asks)


def test_the_key_is_the_visitors_own() -> None:
    """Equal session ids, which are times, do not make two visitors one; other parameters do not make one click two."""
    url = "https://shop.example.com/?im_ref=C&a=1&b=2"
    one, other, shuffled = (
        question(landing(page, anonymousId=visitor, context={"sessionId": 1772366400}))
        for visitor, page in (("a", url), ("b", url), ("a", "https://shop.example.com/?b=2&a=1&im_ref=C#top"))
    )

    assert one is not None
    assert other is not None
    assert shuffled is not None
    assert one.key != other.key
    assert one.key == shuffled.key
    assert "1772366400" not in (one.key or "")


def test_programs_are_told_apart() -> None:
    """The same event at two accounts or campaigns is two clicks."""
    event = landing("https://shop.example.com/?im_ref=C")
    asked = [question(event, destination(**config)) for config in ({}, {"campaignId": "2"}, {"accountSID": "IRother"})]

    assert 3 == len({one.key for one in asked if one is not None})
    assert 3 == len({one.program for one in asked if one is not None})


@pytest.mark.parametrize(
    ("config", "url", "candidate"),
    [
        ({"trackingDomains": ["go.example.com"]}, "https://go.example.com", True),
        ({"trackingDomains": ["GO.example.com"]}, "https://Go.Example.com.:8443/x", True),
        ({"trackingDomains": ["go.example.com"]}, "https://example.com/go.example.com", False),
        ({"trackingDomains": ["go.example.com"]}, "https://[::1", False),
        ({"landingRules": ["utm_medium=aff*"]}, "https://shop.example.com/?UTM_Medium=Affiliate", True),
        ({"landingRules": ["utm_medium=aff*"]}, "https://shop.example.com/#utm_medium=affiliate", False),
        ({"landingRules": ["partner="]}, "https://shop.example.com/?partner=", True),
        ({"landingRules": ["partner="]}, "https://shop.example.com/?x=partner", False),
    ],
)
def test_rules_of_the_operator(config: dict[str, Any], url: str, *, candidate: bool) -> None:
    """Hosts and queries match as a person would read them."""
    asked = question(landing(url), destination(**config))

    assert asked is not None
    assert candidate == (asked.key is not None)


def test_a_landing_of_nobody_is_no_candidate() -> None:
    """The key of a click names its visitor; without one, two visitors' clicks would count as one."""
    event = {**landing("https://go.example.com/"), "anonymousId": None, "userId": None}

    assert question(event, RULED) is None


def test_a_rejected_landing_of_nobody_asks_nothing() -> None:
    """Its click id could be remembered for nobody."""
    event = {**landing("https://shop.example.com/?irclickid=C"), "anonymousId": None, "userId": None}

    assert question(event, destination(enablePageEvents=False)) is None


@given(time=st.integers(0, 2**42), received=st.integers(0, 2**42))
def test_clamping(time: int, received: int) -> None:
    """The time is the event's own within reach, and never out of it."""
    found = clamp(time, received)

    assert received - EARLIEST_MS <= found <= received + LATEST_MS
    assert found == time or not received - EARLIEST_MS <= time <= received + LATEST_MS


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-03-01T12:00:00.123Z", 1772366400123),
        ("2026-03-01T13:00:00.123+01:00", 1772366400123),
        ("2026-03-01T12:00:00", 1772366400000),
        ("2026-03-01", 1772323200000),
        (1772366400, 1772366400000),
        (1772366400123, 1772366400123),
        (" 2026-03-01T12:00:00Z ", 1772366400000),
        ("0001-01-01T00:00:00Z", None),
        ("soon", None),
        ("NOW", None),
        (None, None),
        (True, None),
    ],
)
def test_milliseconds(value: Any, expected: int | None) -> None:
    """Every form of time that routers write, to the millisecond."""
    assert expected == milliseconds(value)


@pytest.mark.parametrize("name", sorted(folder.name for folder in GOLDEN.iterdir()))
def test_a_draft_is_left_as_it_is(name: str) -> None:
    """``transform`` is ``prepare`` and ``conclude``; concluding with one visit leaves nothing behind for the next."""
    folder = GOLDEN / name
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    raw = (folder / "event.json").read_bytes()
    try:
        to = compile_destination(config, load_manifest().configuration, {"IMPACT_VAR_CAMPAIGN": "4242"})
        event, message = decode_event(raw), decode_object(raw)
    except (ConfigurationError, UndecodableEventError):
        return
    draft = prepare(event, to, message)
    before = conclude(draft)
    conclude(draft, Visit(Decision.NEW, "REMEMBERED", undecided=True))

    assert before == conclude(draft, NO_VISIT) == conclude(draft, Visit()) == transform(event, to, message)


def test_a_visit_adds_and_never_takes() -> None:
    """The remembered id joins the form; every other parameter stays."""
    draft = prepare(decode_event(msgspec.json.encode(landing("https://shop.example.com/"))), PLAIN)
    without, stitched = conclude(draft), conclude(draft, Visit(click_id="C"))

    assert isinstance(without, Send)
    assert isinstance(stitched, Send)
    assert {**without.request.form, "ClickId": "C"} == stitched.request.form


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"trackingDomains": ["https://go.example.com/x"]}, r"trackingDomains\[0\]: .* is not a host name"),
        ({"referrerRules": ["a.example.com", "localhost"]}, r"referrerRules\[1\]: 'localhost' is not a host name"),
        ({"landingRules": ["affiliate"]}, r"landingRules\[0\]: 'affiliate' is not a rule such as utm_medium=affiliate"),
        ({"landingRules": ["a=1&&b=2"]}, r"landingRules\[0\]"),
        ({"clickWindowMinutes": 0}, "clickWindowMinutes: must be between 1 and 1440"),
        ({"clickWindowMinutes": "half"}, "clickWindowMinutes: must be a whole number"),
        ({"clickWindowMinutes": True}, "clickWindowMinutes: must be a whole number"),
        ({"referralWindowDays": 91}, "referralWindowDays: must be between 1 and 90"),
        (
            {"clickKeyParts": ["visitor", "session"]},
            r"clickKeyParts\[1\]: must be one of visitor, click_id",
        ),
        ({"repeatedClicks": "keep"}, "repeatedClicks: must be one of page_load, drop"),
        ({"rememberedClick": "second"}, "rememberedClick: must be one of last, first, off"),
        ({"clickIdParameters": {"a": 1}}, "clickIdParameters: must be a list of names"),
    ],
)
def test_mistakes_name_the_key_and_the_fix(config: dict[str, Any], told: str) -> None:
    """An operator reads which key it is and what would do."""
    with pytest.raises(ConfigurationError, match=told):
        destination(**config)


@pytest.mark.parametrize("empty", [[], "", None, [{"eventName": ""}]])
def test_empty_lists_mean_the_defaults(empty: Any) -> None:
    """The empty rows of a form are not "no parameter at all"."""
    found = destination(clickIdParameters=empty, clickKeyParts=empty).config

    assert (("im_ref", "irclickid"), ("visitor", "click_id")) == (found.click_id_parameters, found.click_key_parts)


@pytest.mark.parametrize("written", [45, 45.0, "45", " 45 ", {"web": 45, "cloud": 45}])
def test_whole_numbers_in_the_shapes_of_a_control_plane(written: Any) -> None:
    """As number, as text, and by source type."""
    assert 45 == destination(clickWindowMinutes=written).config.click_window_minutes
