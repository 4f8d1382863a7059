"""The recorded day: made the same every time, holding what it claims, naming nobody who exists."""

from __future__ import annotations

import gzip
import ipaddress
import re
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import make_day

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOLS = Path(__file__).parents[2] / "tools"
DAY_PATH = TOOLS / "day.ndjson.gz"
DOCUMENTATION_NETWORKS = [
    ipaddress.ip_network(block) for block in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]
RESERVED_HOST = re.compile(r"(?:[\w-]+\.)*example\.(?:com|org|net)", re.IGNORECASE)


@pytest.fixture(scope="module", name="events")
def events_fixture() -> list[dict[str, Any]]:
    """Lend the recorded events."""
    events: list[dict[str, Any]] = make_day.read_day(DAY_PATH)
    return events


@pytest.fixture(scope="module", name="text")
def text_fixture() -> str:
    """Lend the recorded day as text."""
    return gzip.decompress(DAY_PATH.read_bytes()).decode()


def values_of(key: str, value: Any) -> Iterator[Any]:
    """Find every value that stands under a key, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield inner
            yield from values_of(key, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from values_of(key, inner)


def landings(events: list[dict[str, Any]]) -> dict[tuple[str, str], list[datetime]]:
    """Collect the times of the partner landings in the browser, by visitor and click id."""
    times: dict[tuple[str, str], list[datetime]] = defaultdict(list)
    for event in events:
        click = make_day.click_of({"properties": {}, **event}) if event["channel"] == "web" else None
        if click and event["originalTimestamp"].startswith("2026-"):
            times[str(event.get("anonymousId")), click].append(datetime.fromisoformat(event["originalTimestamp"]))
    return times


def test_regenerating_gives_the_same_lines(text: str) -> None:
    """The file is what the script makes, line for line."""
    assert text.encode() == make_day.encode_day(make_day.make_day())


def test_writing_twice_gives_the_same_file(tmp_path: Path) -> None:
    """Neither the time nor the name of the file gets into it."""
    first, second = tmp_path / "first.gz", tmp_path / "second.gz"

    make_day.write_day(first, b'{"type":"page"}\n')
    make_day.write_day(second, b'{"type":"page"}\n')

    assert first.read_bytes() == second.read_bytes()
    assert make_day.read_day(first) == [{"type": "page"}]


def test_file_is_small_and_has_no_date() -> None:
    """The file fits a repository; bytes 4 to 7 of a gzip file are its date."""
    packed = DAY_PATH.read_bytes()

    assert len(packed) <= 250_000
    assert packed[4:8] == bytes(4)


def test_counts_of_the_docstring_hold(events: list[dict[str, Any]]) -> None:
    """Every row of the table in the script is true, and no row is missing."""
    assert make_day.claims() == make_day.census(events)


def test_counts_agree_with_a_plain_count(events: list[dict[str, Any]]) -> None:
    """The script's own counting is checked with a second, simpler one."""
    claims = make_day.claims()
    types = Counter(event.get("type", "missing").lower() for event in events)
    orders = [event for event in events if event.get("event") in {"Order Completed", "Order Created", "purchase"}]

    assert claims["events"] == len(events) == types.total()
    assert {f"type {name}": count for name, count in types.items()}.items() <= claims.items()
    assert claims["orders"] == len(orders)
    assert claims["spoilt"] == sum(count for name, count in claims.items() if name.startswith("spoilt: "))


def test_message_ids_are_unique_and_look_like_uuids(events: list[dict[str, Any]]) -> None:
    """No two events share a message id."""
    message_ids = {event["messageId"] for event in events}

    assert len(message_ids) == len(events)
    assert all(re.fullmatch(r"[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}", message_id) for message_id in message_ids)


def test_events_are_of_one_day_in_the_order_received(events: list[dict[str, Any]]) -> None:
    """The lines are in time order and all of 2026-09-10."""
    received = [event["receivedAt"] for event in events]

    assert received == sorted(received)
    assert {moment[:10] for moment in received} == {"2026-09-10"}


def test_day_has_a_quiet_night_and_a_busy_evening(events: list[dict[str, Any]]) -> None:
    """Traffic follows the people: few events before five, most of them in the evening."""
    hours = Counter(int(event["receivedAt"][11:13]) for event in events)

    assert sum(hours[hour] for hour in range(5)) * 5 < sum(hours[hour] for hour in range(17, 22))


def test_landings_repeat_just_inside_and_just_outside_the_window(events: list[dict[str, Any]]) -> None:
    """The same click id lands again after exactly 29 and exactly 31 minutes."""
    gaps = Counter(later - earlier for times in landings(events).values() for earlier, later in pairwise(times))

    assert gaps[timedelta(minutes=29)] >= 8
    assert gaps[timedelta(minutes=31)] >= 6


def test_some_visitors_land_from_two_partners(events: list[dict[str, Any]]) -> None:
    """A second partner the same day brings the same visitor with another click id."""
    clicks_of = Counter(visitor for visitor, _ in landings(events))

    assert sum(clicks > 1 for clicks in clicks_of.values()) >= 7


def test_servers_send_no_anonymous_id_and_their_own_address(events: list[dict[str, Any]]) -> None:
    """A server library's request address is the server's, so nobody may take it for a visitor's."""
    servers = [event for event in events if event["channel"] == "server"]

    assert servers
    assert {event["anonymousId"] for event in servers} == {None}
    assert all(event["request_ip"].startswith("203.0.113.") for event in servers)


def test_mail_addresses_are_reserved_ones(text: str) -> None:
    """Every mail address, plain or escaped, is below example.com, .org or .net."""
    hosts = re.findall(r"[\w.+-]+(?:@|%40)([\w.-]+)", text)

    assert hosts
    assert [host for host in hosts if not RESERVED_HOST.fullmatch(host)] == []


def test_hosts_are_reserved_ones(text: str) -> None:
    """Every link leads to example.com, .org or .net."""
    hosts = set(re.findall(r"\w+://([^/?#:\s\"\\]+)", text))

    assert hosts
    assert [host for host in hosts if not RESERVED_HOST.fullmatch(host)] == []


def test_network_addresses_are_documentation_ones(events: list[dict[str, Any]], text: str) -> None:
    """Every network address is from a range reserved for documentation; versions such as Chrome/139.0.0.0 are none."""
    named = {address for key in ("ip", "request_ip", "requestIp") for address in values_of(key, events)}
    written = set(re.findall(r"(?<![\w./])\d+(?:\.\d+){3}(?![\w.])", text))
    compressed = set(re.findall(r"[\da-f]+(?::[\da-f]*)*::[\da-f:]*", text))
    addresses = {ipaddress.ip_address(address) for address in named | written | compressed}

    assert {address.version for address in addresses} == {4, 6}
    assert [address for address in addresses if not any(address in block for block in DOCUMENTATION_NETWORKS)] == []


def test_destination_config_is_complete() -> None:
    """The configuration that goes with the day names an account, a token and a campaign."""
    assert {"accountSID", "apiKey", "campaignId"} <= make_day.DESTINATION_CONFIG.keys()
