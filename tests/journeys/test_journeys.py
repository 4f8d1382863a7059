"""Recorded journeys with known truth, run through the real service in every way a router may send them.

The truth stands in the files, written by hand; nothing here computes it.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import pytest

from impact_plugin.app import Service, run_service
from impact_plugin.config.settings import Settings
from impact_plugin.testing import JobResult, StrictRudder
from tests.journeys.recorded import FOLDER, Journey, Recorded, Request, Way, complete, read_journeys

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOURNEYS: Final = read_journeys()
PROGRAMS: Final = count(10_000)
"""A program of its own for each run of a journey: programs know nothing of each other."""

Answer = tuple[str, str | None]
Send = Callable[[Sequence[Recorded], Way], Awaitable[list[Answer]]]


def truth(events: Sequence[Recorded]) -> list[Answer]:
    """What the file says of the events."""
    return [(one.becomes, one.click_id) for one in events]


def answer_of(result: JobResult) -> Answer:
    """What the router was told about one event, in the words of the files."""
    if result.request is not None:
        return result.request["endpointPath"], result.request["body"]["FORM"].get("ClickId")
    reason = re.search(r"\(([a-z_]+)\)\.?", result.error)
    return f"{result.state}: {result.error if reason is None else reason[1]}", None


@asynccontextmanager
async def sender(service: Service, journey: Journey, program: int) -> AsyncIterator[Send]:
    """Lend a sender of the journey's events to the service, as the router sends them to one program."""
    config = {"accountSID": "IRjourneys", "apiKey": "journeys-token", "campaignId": str(program), **journey.config}
    async with StrictRudder(service.url, destination_config=config, keep_alive=True) as rudder:

        async def send(events: Sequence[Recorded], way: Way) -> list[Answer]:
            ask = rudder.send_processor if way == "processor" else rudder.send_router
            return [answer_of(result) for result in await ask([complete(journey, one) for one in events])]

        yield send


def way_of(request: Request, way: Way) -> Way:
    """The way of a request, unless the journey is about one."""
    return request.through or way


async def as_recorded_through_the_processor(send: Send, journey: Journey) -> None:
    """Send each request once, through processor transform."""
    for request in journey.requests:
        assert truth(request.events) == await send(request.events, way_of(request, "processor"))


async def as_recorded_through_the_router(send: Send, journey: Journey) -> None:
    """Send each request once, through router transform."""
    for request in journey.requests:
        assert truth(request.events) == await send(request.events, way_of(request, "router"))


async def alone(send: Send, journey: Journey) -> None:
    """Send each event in a request of its own."""
    for request in journey.requests:
        for one in request.events:
            assert truth([one]) == await send([one], way_of(request, "router"))


async def twice(send: Send, journey: Journey) -> None:
    """Send each request twice, as a router does whose connection broke before the reply."""
    for request in journey.requests:
        for _ in range(2):
            assert truth(request.events) == await send(request.events, way_of(request, "router"))


async def both_ways(send: Send, journey: Journey) -> None:
    """Send each request through processor transform and then through router transform."""
    for request in journey.requests:
        assert truth(request.events) == await send(request.events, "processor")
        assert truth(request.events) == await send(request.events, "router")


async def in_other_parts(send: Send, journey: Journey) -> None:
    """Send each request whole, and then its events one by one, the last first."""
    for request in journey.requests:
        assert truth(request.events) == await send(request.events, way_of(request, "processor"))
        for one in reversed(request.events):
            assert truth([one]) == await send([one], way_of(request, "router"))


async def all_again(send: Send, journey: Journey) -> None:
    """Send the whole journey, and then, when everything is known, all of it again."""
    for _ in range(2):
        for request in journey.requests:
            assert truth(request.events) == await send(request.events, way_of(request, "processor"))


WAYS: Final[dict[str, Callable[[Send, Journey], Awaitable[None]]]] = {
    way.__name__: way
    for way in (
        as_recorded_through_the_processor,
        as_recorded_through_the_router,
        alone,
        twice,
        both_ways,
        in_other_parts,
        all_again,
    )
}

APPLICABLE: Final = [(name, way) for name, one in JOURNEYS.items() for way in WAYS if way not in one.excepted]


@pytest.mark.parametrize(("name", "way"), APPLICABLE, ids=[f"{name}-{way}" for name, way in APPLICABLE])
async def test_every_event_of_a_journey_becomes_what_the_file_says(service: Service, name: str, way: str) -> None:
    """However the router cuts and repeats its requests, labels and click ids are those written by hand."""
    journey = JOURNEYS[name]
    async with sender(service, journey, next(PROGRAMS)) as send:
        await WAYS[way](send, journey)


@pytest.mark.parametrize("name", JOURNEYS)
async def test_a_restart_in_the_middle_changes_nothing(new_store: Callable[[], Settings], name: str) -> None:
    """The service stops after a request whose reply the router did not read: it is sent again to the next service."""
    journey, settings, program = JOURNEYS[name], new_store(), next(PROGRAMS)
    middle = (len(journey.requests) + 1) // 2
    for part in (journey.requests[:middle], journey.requests[middle - 1 :]):
        async with run_service(settings, {}) as service, sender(service, journey, program) as send:
            for request in part:
                assert truth(request.events) == await send(request.events, way_of(request, "router"))


@pytest.mark.parametrize("name", JOURNEYS)
async def test_a_replay_into_an_empty_store_decides_the_same_and_counts_what_the_file_expects(
    new_store: Callable[[], Settings], name: str
) -> None:
    """Live through the processor and replayed through the router; the metrics count messages once, retried or not."""
    journey, program = JOURNEYS[name], next(PROGRAMS)
    ways: tuple[Way, Way] = ("processor", "router")
    for way in ways:
        async with run_service(new_store(), {}) as service, sender(service, journey, program) as send:
            for request in journey.requests:
                for _ in range(2):
                    assert truth(request.events) == await send(request.events, way_of(request, way))
            assert (journey.expected.clicks, journey.expected.stitched_orders) == await counted(service)


async def counted(service: Service) -> tuple[int, int]:
    """Unique clicks and stitched orders, as the operator reads them."""
    async with aiohttp.ClientSession() as session, session.get(f"{service.operator_url}/metrics") as response:
        text = await response.text()
    return (
        _metric(text, 'impact_plugin_click_decisions_total{decision="new"}'),
        _metric(text, 'impact_plugin_orders_total{click_id="stitched"}'),
    )


def _metric(text: str, name: str) -> int:
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return 0 if found is None else int(float(found[1]))


async def test_the_expectation_of_a_file_agrees_with_its_events() -> None:
    """The counts that a reader sees at the top are those of the messages below, each counted once."""
    told = {name: (one.expected.clicks, one.expected.stitched_orders) for name, one in JOURNEYS.items()}
    assert told == {name: (_messages(one, _is_click), _messages(one, _is_stitched)) for name, one in JOURNEYS.items()}


def _messages(journey: Journey, test: Callable[[Recorded], bool]) -> int:
    events = [one for request in journey.requests for one in request.events]
    return len({one.event["messageId"] for one in events if test(one)})


def _is_click(one: Recorded) -> bool:
    return one.becomes == "clicks"


def _is_stitched(one: Recorded) -> bool:
    return one.stitched


async def test_a_stitched_event_is_a_conversion_with_a_click_id() -> None:
    """``stitched`` stands at nothing else, so the counts mean what they say."""
    events = [one for journey in JOURNEYS.values() for request in journey.requests for one in request.events]
    stitched = [one for one in events if one.stitched]
    assert stitched == [one for one in stitched if one.becomes == "conversions" and one.click_id is not None]


async def test_the_table_of_journeys_agrees_with_the_files() -> None:
    """Every file has a row in the README, in order of name, with its title and its counts."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.json\) \| (.+?) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    told = [(name, file, title, int(clicks), int(orders)) for name, file, title, clicks, orders in rows]
    assert told == [
        (name, name, one.title, one.expected.clicks, one.expected.stitched_orders) for name, one in JOURNEYS.items()
    ]


async def test_exceptions_name_a_way_and_say_why() -> None:
    """A journey is left out of a way of sending only for a reason in its file."""
    excepted = [(way, why) for journey in JOURNEYS.values() for way, why in journey.excepted.items()]
    assert excepted == [(way, why) for way, why in excepted if way in WAYS and len(why.split()) > 5]


async def test_people_and_places_are_invented() -> None:
    """Hosts are reserved for documentation, so that nobody is ever called by a test or an example."""
    reserved = re.compile(r"(?:.+\.)?example\.(?:com|net|org)")
    urls = [url for path in FOLDER.glob("*.json") for url in re.findall(r'https?://[^"\s]+', path.read_text("utf-8"))]
    hosts: set[Any] = {urlsplit(url).hostname for url in urls}
    assert hosts == {host for host in hosts if reserved.fullmatch(host)}
