"""Is this event a click candidate, and what distinguishes it from every other click?

A candidate is a page, a screen, or a track that becomes a Page Load, whose landing URL carries a click id, or whose
host is a tracking domain of the program, or which a landing or referrer rule of the operator's names; by host and by
referrer only the entry of a visit is one, not every page of it. Whether a
candidate is a *unique* click depends on earlier ones and is decided by whoever keeps the sessions.
https://help.impact.com/en/support/solutions/articles/155000005268-understanding-clicks
"""

from collections.abc import Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from impact_transformers.click_ids import FindClickId, click_id_finder, host_of, is_same_site, usable
from impact_transformers.configuration import DestinationConfig
from impact_transformers.events import NO_CONTEXT, NO_DEVICE, NO_PAGE, KnownEvent, Track
from impact_transformers.normalize import FIRST_YEAR, LAST_YEAR, as_text, date

SEPARATOR: Final = "\x1f"
REWARDS: Final = "im_rewards"
"""The parameter of links whose visitors are promised a reward, such as cashback."""

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

    landing: FindClickId
    carried: FindClickId
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
    fixed: bool


def compile_rules(config: DestinationConfig, *, by_form: bool, has_click_id: bool) -> ClickRules:
    """The rules of a destination; ``has_click_id`` tells whether its tables send ClickId at all."""
    found = click_id_finder(config.click_id_parameters)
    return ClickRules(
        landing=found.landing,
        carried=found.carried,
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
        fixed=config.click_window_type == "fixed",
    )


def carried_click_id(event: KnownEvent, rules: ClickRules) -> str | None:
    """The click id that the event's URL carries, in a form that may be sent; None for any other."""
    context = event.context or NO_CONTEXT
    return usable(rules.carried(context.page or NO_PAGE, event.properties or {}))


def _landing_click_id(event: KnownEvent, rules: ClickRules) -> str | None:
    """As :func:`carried_click_id`, in the event's own URL: pages after the landing are no clicks."""
    context = event.context or NO_CONTEXT
    return usable(rules.landing(context.page or NO_PAGE, event.properties or {}))


def is_rewarded(event: KnownEvent) -> bool:
    """Whether the event says that a reward was promised: in its URL, in that of the page before, or as a property."""
    page, get = (event.context or NO_CONTEXT).page or NO_PAGE, (event.properties or {}).get
    places = (page.url, page.search, page.referrer, get("url"), get("search"))
    named = any(isinstance(place, str) and f"{REWARDS}=" in place.lower() for place in places)
    return named or as_text(get(REWARDS)) not in (None, "false", "0")


def click_key(event: KnownEvent, form: Mapping[str, str], rules: ClickRules) -> str | None:
    """What makes the click its own, as one text; None when the event is no candidate."""
    has_none = rules.by_form and "ClickId" not in form
    if has_none and rules.plain:
        return None
    click_id = None if has_none else _landing_click_id(event, rules)
    landing = form.get("PageUrl", "")
    named = click_id or _named_by(landing, form.get("ReferringUrl", ""), rules)
    if named is None:
        return None
    visitor = visitor_of(event)
    if click_id is None and not visitor:
        return None
    parts = {"visitor": visitor, "click_id": named, "landing_url": _without_query(landing)}
    return SEPARATOR.join((rules.program, *(f"{name}={parts[name]}" for name in rules.key_parts)))


def visitor_of(event: KnownEvent) -> str:
    """Who came: the anonymous id, else the device's, else the user's; "" for nobody.

    A router's ``context.sessionId`` is a time, the same for many visitors, so it is never the visitor.
    """
    device = (event.context or NO_CONTEXT).device or NO_DEVICE
    return as_text(event.anonymous_id) or as_text(device.id) or as_text(event.user_id) or ""


def _named_by(landing: str, referrer: str, rules: ClickRules) -> str | None:
    """What a rule of the operator's makes the landing a candidate by, so that two partners are two clicks."""
    matched = _matched_query(landing, rules.landings) if rules.landings and "?" in landing else None
    if matched is not None:
        return f"{_without_query(landing)}?{matched}"
    if not (rules.referrers or rules.hosts) or is_same_site(referrer, landing):
        return None
    host = host_of(referrer)
    if _is_below(host, rules.referrers):
        return f"referrer {host}"
    return _without_query(landing) if _is_below(host_of(landing), rules.hosts) else None


def _matched_query(landing: str, rules: tuple[Mapping[str, str], ...]) -> str | None:
    """The parameters of the first landing rule that the URL fulfils, with the URL's own values."""
    query = dict(parse_qsl(landing.partition("?")[2].partition("#")[0].lower(), keep_blank_values=True))
    for rule in rules:
        if all(name in query and fnmatchcase(query[name], value) for name, value in rule.items()):
            return "&".join(f"{name}={query[name]}" for name in sorted(rule))
    return None


def _without_query(url: str) -> str:
    return url.partition("?")[0].partition("#")[0]


def _is_below(host: str, hosts: tuple[str, ...]) -> bool:
    """Whether the host is one of ``hosts`` or a subdomain of one."""
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
    own = event.timestamp or event.original_timestamp
    time = milliseconds(event_date or own)
    if received is not None:
        # What is sent is never later than the receipt; a clock that is ahead counts as far as the clamp lets it.
        if time == received and event_date != own:
            time = max(received, milliseconds(own) or received)
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
