"""Is this event a click candidate, and what distinguishes it from every other click?

A candidate is a page, a screen, or a track that becomes a Page Load, whose landing URL carries a click id, or whose
host is a tracking domain of the program, or which a landing or referrer rule of the operator's names. Whether a
candidate is a *unique* click depends on earlier ones and is decided by whoever keeps the sessions.
https://help.impact.com/en/support/solutions/articles/155000005268-understanding-clicks
"""

from collections.abc import Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from impact_transformers.configuration import DestinationConfig
from impact_transformers.events import NO_CONTEXT, NO_DEVICE, NO_PAGE, KnownEvent, Track
from impact_transformers.normalize import FIRST_YEAR, LAST_YEAR, as_text, date, identifier_of
from impact_transformers.outcome import RefusalError
from impact_transformers.sources import FindClickId, click_id_finder

SEPARATOR: Final = "\x1f"
LONGEST_CLICK_ID: Final = 64
"""https://integrations.impact.com/impact-brand/reference/the-conversion-object"""

MINUTE_MS: Final = 60_000
DAY_MS: Final = 24 * 60 * MINUTE_MS
EARLIEST_MS: Final = DAY_MS
"""How long before it was received an event may have happened, for deciding about clicks."""

LATEST_MS: Final = 5 * MINUTE_MS
"""How far ahead of the time it was received an event's own time may be: clocks of visitors are wrong."""


class ClickRules(msgspec.Struct, frozen=True):
    """What makes a click at one destination, ready for use.

    ``by_form`` tells that a page whose form has no ClickId has none in its URL either, so that nobody need look twice;
    ``plain`` that besides there is no rule that could make it a candidate.
    """

    find: FindClickId
    hosts: tuple[str, ...]
    landings: tuple[Mapping[str, str], ...]
    referrers: tuple[str, ...]
    key_parts: tuple[str, ...]
    program: str
    by_form: bool
    plain: bool
    remembers: bool
    window_ms: int
    referral_ms: int
    first: bool


def compile_rules(config: DestinationConfig, *, by_form: bool, has_click_id: bool) -> ClickRules:
    """The rules of a destination; ``has_click_id`` tells whether its tables send ClickId at all."""
    return ClickRules(
        find=click_id_finder(config.click_id_parameters),
        hosts=tuple(host.lower() for host in config.tracking_domains),
        landings=tuple(dict(parse_qsl(rule.lower(), keep_blank_values=True)) for rule in config.landing_rules),
        referrers=tuple(host.lower() for host in config.referrer_rules),
        key_parts=config.click_key_parts,
        program=config.account_sid + SEPARATOR + config.campaign_id,
        by_form=by_form,
        plain=by_form and not (config.tracking_domains or config.landing_rules or config.referrer_rules),
        remembers=has_click_id and config.remembered_click != "off",
        window_ms=config.click_window_minutes * MINUTE_MS,
        referral_ms=config.referral_window_days * DAY_MS,
        first=config.remembered_click == "first",
    )


def landing_click_id(event: KnownEvent, rules: ClickRules) -> str | None:
    """The click id that the event's URL carries, in a form that may be sent; None for any other."""
    context = event.context or NO_CONTEXT
    found = rules.find(context.page or NO_PAGE, event.properties or {})
    try:
        return _usable(found)
    except RefusalError:
        return None


_usable: Final = identifier_of(LONGEST_CLICK_ID, "refuse")


def click_key(event: KnownEvent, form: Mapping[str, str], rules: ClickRules) -> str | None:
    """What makes the click its own, as one text; None when the event is no candidate."""
    has_none = rules.by_form and "ClickId" not in form
    if has_none and rules.plain:
        return None
    click_id = None if has_none else landing_click_id(event, rules)
    landing = form.get("PageUrl", "")
    if click_id is None and not _is_named(landing, form.get("ReferringUrl", ""), rules):
        return None
    page = landing.partition("?")[0].partition("#")[0]
    visitor = visitor_of(event)
    if click_id is None and not visitor:
        return None
    parts = {"visitor": visitor, "click_id": click_id or page, "landing_url": page}
    return SEPARATOR.join((rules.program, *(f"{name}={parts[name]}" for name in rules.key_parts)))


def visitor_of(event: KnownEvent) -> str:
    """Who came: the anonymous id, else the device's, else the user's; "" for nobody.

    A router's ``context.sessionId`` is a time, the same for many visitors, so it is never the visitor.
    """
    device = (event.context or NO_CONTEXT).device or NO_DEVICE
    return as_text(event.anonymous_id) or as_text(device.id) or as_text(event.user_id) or ""


def _is_named(landing: str, referrer: str, rules: ClickRules) -> bool:
    """Whether a rule of the operator's makes the landing a candidate."""
    if rules.hosts and _is_below(landing, rules.hosts):
        return True
    if rules.referrers and _is_below(referrer, rules.referrers):
        return True
    if not rules.landings or "?" not in landing:
        return False
    query = dict(parse_qsl(landing.partition("?")[2].partition("#")[0].lower(), keep_blank_values=True))
    return any(
        all(name in query and fnmatchcase(query[name], value) for name, value in rule.items())
        for rule in rules.landings
    )


def _is_below(url: str, hosts: tuple[str, ...]) -> bool:
    """Whether the URL's host is one of ``hosts`` or a subdomain of one."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return False
    return any(host == one or host.endswith("." + one) for one in hosts)


def milliseconds(value: object) -> int | None:
    """A time of an event in milliseconds since 1970; None for no usable time."""
    if type(value) is str:
        # The usual form needs no cleaning, which takes longer than reading it.
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is not None and FIRST_YEAR <= moment.year < LAST_YEAR:
            return round(moment.timestamp() * 1000)
    text = date(value)
    return None if text is None else round(datetime.fromisoformat(text).timestamp() * 1000)


def clamp(time: int, received: int) -> int:
    """The time at which the event counts: visitors' clocks and delayed batches cannot move it further than this."""
    if received - EARLIEST_MS <= time <= received + LATEST_MS:
        return time
    return received - EARLIEST_MS if time < received else received + LATEST_MS


def counted_time(event: KnownEvent, event_date: str | None = None) -> tuple[int | None, int | None]:
    """When the event counts as having happened, and when it was received, in milliseconds since 1970.

    ``event_date`` is the request's and goes before the event's own times; None for no usable time.
    """
    received = milliseconds(event.received_at)
    time = milliseconds(event_date or event.timestamp or event.original_timestamp)
    if received is not None:
        time = received if time is None else clamp(time, received)
    return time, received


def message_facts(event: KnownEvent, form: Mapping[str, str]) -> str:
    """What tells one message from another: its id; without one, what it says.

    Call and name belong to it, because a user transformation may make several events of one message.
    """
    name = (as_text(event.event) or "") if type(event) is Track else ""
    message_id = as_text(event.message_id)
    if message_id is not None:
        return f"{type(event).__name__}{SEPARATOR}{name}{SEPARATOR}{message_id}"
    said = (as_text(event.anonymous_id) or "", as_text(event.user_id) or "")
    facts = (type(event).__name__, name, "", *said, form.get("EventDate", ""), form.get("PageUrl", ""))
    return SEPARATOR.join(facts)
