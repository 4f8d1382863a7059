"""One request from its turn to its verdict, on a client and a ledger written by hand, and then over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from impact_plugin.app import Service
from impact_plugin.config.settings import DeliverySettings
from impact_plugin.delivery.pipeline import Deliveries, DeliveryRequest, OrderIdentity
from impact_plugin.delivery.policy import Cause, ImpactResponse, NoResponse
from impact_plugin.errors import StateUnavailableError
from impact_plugin.orders.ledger import Begin, Entry, LedgerTally, OrderOutcome, Settle, Standing, Terms, play
from impact_plugin.process.background import open_background
from impact_plugin.telemetry import Telemetry
from impact_plugin.testing.fake_impact import FakeImpact

OK = ImpactResponse(200, b'{"Status":"QUEUED"}')
TERMS = Terms(window=86_400_000, lease=60_000)


class Impact:
    """A client that answers as told, and keeps what it was asked to send."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.answers: list[ImpactResponse | NoResponse | Exception] = []
        self.gate: asyncio.Event | None = None
        self.most = self.together = 0

    async def post(
        self, _url: str, _headers: Mapping[str, str], body: bytes, *, seconds: float
    ) -> ImpactResponse | NoResponse:
        """Take the body, wait for the gate, answer."""
        self.sent.append(body)
        self.together += 1
        self.most = max(self.most, self.together)
        try:
            if self.gate is not None:
                async with asyncio.timeout(seconds):
                    await self.gate.wait()
        except TimeoutError:
            return NoResponse(written=True, detail="TimeoutError")
        finally:
            self.together -= 1
        answer = self.answers.pop(0) if self.answers else OK
        if isinstance(answer, Exception):
            raise answer
        return answer


class Book:
    """A ledger in memory, by the ledger's own rules; out of reach as told."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.attempts: dict[bytes, bytes] = {}
        self.now = 1_000_000_000_000
        self.down = False

    async def begin(self, identity: bytes, *, again: bool = False) -> Standing:
        """See the port."""
        if self.down:
            raise StateUnavailableError("the disk is full")
        attempt = str(len(self.attempts)).encode()
        (standing,) = play(self.entries, [Begin(identity, attempt, again)], self.now, TERMS)
        self.attempts[identity] = attempt
        assert standing is not None
        return standing

    async def settle(self, identity: bytes, outcome: OrderOutcome) -> None:
        """See the port."""
        play(self.entries, [Settle(identity, self.attempts[identity], outcome)], self.now, TERMS)

    async def flush(self) -> None:
        """See the port."""

    async def check(self) -> None:
        """See the port."""
        if self.down:
            raise StateUnavailableError("the disk is full")

    async def tally(self) -> LedgerTally:
        """See the port."""
        await self.check()
        return LedgerTally(len(self.entries), 10, 0, 0)


class Bench:
    """Deliveries with their stand-ins."""

    def __init__(self, deliveries: Deliveries, impact: Impact, book: Book, telemetry: Telemetry) -> None:
        self.deliveries, self.impact, self.book, self.telemetry = deliveries, impact, book, telemetry

    def metric(self, name: str, **labels: str) -> float | None:
        """The value of a metric."""
        return self.telemetry.metrics.registry.get_sample_value(name, labels)

    def in_flight(self) -> int:
        """Leave that is out."""
        return sum(one.statistics.in_flight for one in self.deliveries.report())


@asynccontextmanager
async def bench(**settings: Any) -> AsyncIterator[Bench]:
    """Lend a bench; whatever happened, no leave is out at the end."""
    impact, book, telemetry = Impact(), Book(), Telemetry()
    client: Any = impact
    async with open_background() as tasks:
        clock = lambda: 1_790_000_000.0  # noqa: E731
        made = Deliveries(DeliverySettings(**settings), client, book, _digest, telemetry, clock)
        tasks.start_soon(made.run)
        yield Bench(made, impact, book, telemetry)
        await asyncio.sleep(0)
        await made.drain(1.0)
    assert sum(one.statistics.in_flight for one in made.report()) == 0


def _digest(text: str) -> bytes:
    return text.encode()


def order(order_id: str = "o-1", **more: Any) -> DeliveryRequest:
    """A conversion."""
    identity = OrderIdentity("IRtest", "1", "id:1", order_id)
    body = order_id.encode()
    return DeliveryRequest("IRtest", "conversions", "http://x/Conversions", {}, body, **{"order": identity, **more})


def page(name: str = "p", account: str = "IRtest", **more: Any) -> DeliveryRequest:
    """A page load."""
    return DeliveryRequest(account, "pageload", "http://x/PageLoad", {}, name.encode(), **more)


async def test_an_order_is_sent_once_however_often_it_is_asked_for() -> None:
    """A reply that got lost, a router that asks again: the second time nothing is sent, and the answer is the same."""
    async with bench() as b:
        verdicts = [await b.deliveries.deliver(order(), seconds=1) for _ in range(3)]

    assert [one.result for one in verdicts] == ["delivered"] * 3
    assert [one.cause for one in verdicts] == [Cause.OK, Cause.DUPLICATE_ORDER, Cause.DUPLICATE_ORDER]
    assert b.impact.sent == [b"o-1"]


async def test_duplicates_are_sent_where_the_operator_says_so() -> None:
    """``duplicateOrders`` send."""
    async with bench() as b:
        for _ in range(2):
            await b.deliveries.deliver(order(resend=True), seconds=1)

    assert b.impact.sent == [b"o-1", b"o-1"]


async def test_an_order_asked_for_twice_at_once_is_sent_once() -> None:
    """The second asker waits for the first one's attempt and hears its outcome."""
    async with bench() as b:
        verdicts = await asyncio.gather(*(b.deliveries.deliver(order(), seconds=1) for _ in range(5)))

    assert [one.cause for one in verdicts] == [Cause.OK] * 5
    assert b.impact.sent == [b"o-1"]


async def test_the_same_order_id_of_another_event_type_is_another_order() -> None:
    """impact.com's order ids are unique per event type."""
    async with bench() as b:
        await b.deliveries.deliver(order(), seconds=1)
        other = OrderIdentity("IRtest", "1", "id:2", "o-1")
        verdict = await b.deliveries.deliver(order(order=other), seconds=1)

    assert verdict.cause is Cause.OK
    assert len(b.impact.sent) == 2


@pytest.mark.parametrize(
    ("answer", "then"),
    [
        (ImpactResponse(400, b""), Cause.OK),
        (ImpactResponse(401, b""), Cause.OK),
        (ImpactResponse(429, b"", {"Retry-After": "0"}), Cause.WAITING),
        (ImpactResponse(503, b""), Cause.OK),
        (NoResponse(written=False, detail="ClientConnectorError"), Cause.OK),
        (ImpactResponse(500, b""), Cause.OK),
        (NoResponse(written=True, detail="TimeoutError"), Cause.OK),
    ],
    ids=["400", "401", "429", "503", "no connection", "500", "timeout"],
)
async def test_a_failed_order_is_sent_again(answer: ImpactResponse | NoResponse, then: Cause) -> None:
    """With the same order id, whether impact.com may have it or not."""
    async with bench() as b:
        b.impact.answers = [answer]
        first = await b.deliveries.deliver(order(), seconds=1)
        second = await b.deliveries.deliver(order(attempt=1), seconds=0.3)

    assert first.result in {"retry", "rejected"}
    assert second.cause in {then, Cause.OK}


async def test_an_order_of_unknown_fate_is_not_sent_after_the_window() -> None:
    """impact.com may have forgotten the order id: it could be paid twice."""
    async with bench() as b:
        b.impact.answers = [NoResponse(written=True, detail="TimeoutError")]
        await b.deliveries.deliver(order(), seconds=1)
        b.book.now += TERMS.window
        verdict = await b.deliveries.deliver(order(attempt=1), seconds=1)

    assert (verdict.result, verdict.cause) == ("retry", Cause.AMBIGUOUS_EXPIRED)
    assert b.impact.sent == [b"o-1"]


async def test_the_answer_comes_in_time_and_the_attempt_goes_on() -> None:
    """Giving up would make an order ambiguous that is about to be answered."""
    async with bench() as b:
        b.impact.gate = asyncio.Event()
        first = await b.deliveries.deliver(order(), seconds=0.05)
        b.impact.gate.set()
        await asyncio.sleep(0.01)
        second = await b.deliveries.deliver(order(attempt=1), seconds=1)

    assert (first.result, first.cause) == ("retry", Cause.AMBIGUOUS)
    assert second.cause is Cause.DUPLICATE_ORDER
    assert b.impact.sent == [b"o-1"]


async def test_who_asks_again_meanwhile_waits_for_the_same_attempt() -> None:
    """The router's retry meets the first attempt still under way."""
    async with bench() as b:
        b.impact.gate = asyncio.Event()
        await b.deliveries.deliver(order(), seconds=0.05)
        again = asyncio.create_task(b.deliveries.deliver(order(attempt=1), seconds=1))
        await asyncio.sleep(0.01)
        b.impact.gate.set()
        verdict = await again

    assert verdict.cause is Cause.OK
    assert b.impact.sent == [b"o-1"]


async def test_nothing_is_sent_for_a_router_that_hung_up() -> None:
    """Its job comes again; who is gone before the turn costs impact.com nothing."""
    async with bench() as b:
        verdict = await b.deliveries.deliver(order(), seconds=1, is_abandoned=lambda: True)

    assert verdict.result == "retry"
    assert b.impact.sent == []
    assert b.book.entries == {}


async def test_without_the_ledger_orders_wait_and_page_loads_do_not() -> None:
    """An order that is not noted first might be sent twice; a page load may."""
    async with bench() as b:
        b.book.down = True
        held = await b.deliveries.deliver(order(), seconds=1)
        page_load = await b.deliveries.deliver(page(), seconds=1)
        down = b.metric("impact_plugin_ledger_up")
        b.book.down = False
        sent = await b.deliveries.deliver(order(), seconds=1)

    assert (held.result, held.cause) == ("retry", Cause.STATE_UNAVAILABLE)
    assert "the disk is full" in held.text
    assert (page_load.cause, sent.cause, down) == (Cause.OK, Cause.OK, 0.0)


async def test_stopping_answers_those_who_wait_and_finishes_what_is_under_way() -> None:
    """SIGTERM: nothing new goes out, nothing begun is lost."""
    async with bench(account_connections=1, connections=1) as b:
        b.impact.gate = asyncio.Event()
        begun = asyncio.create_task(b.deliveries.deliver(order("o-1"), seconds=5))
        waits = asyncio.create_task(b.deliveries.deliver(order("o-2"), seconds=5))
        await asyncio.sleep(0.01)
        b.deliveries.stop()
        held = await waits
        late = await b.deliveries.deliver(order("o-3"), seconds=5)
        b.impact.gate.set()
        finished = await begun

    assert (held.cause, late.cause, finished.cause) == (Cause.STOPPING, Cause.STOPPING, Cause.OK)
    assert b.impact.sent == [b"o-1"]


async def test_what_does_not_end_within_the_grace_stays_unknown() -> None:
    """After the restart the order is sent again with its id, and never counted as not sent."""
    async with bench() as b:
        b.impact.gate = asyncio.Event()
        await b.deliveries.deliver(order(), seconds=0.05)
        await b.deliveries.drain(0.05)
        (entry,) = b.book.entries.values()

    assert entry.attempt != b""
    assert not entry.delivered


async def test_a_defect_costs_one_request_and_no_place() -> None:
    """The exception reaches who asked, and the leave is given back."""
    async with bench(account_connections=1, connections=1) as b:
        b.impact.answers = [RuntimeError("defect")]
        with pytest.raises(RuntimeError, match="defect"):
            await b.deliveries.deliver(page(), seconds=1)
        out = b.in_flight()
        verdict = await b.deliveries.deliver(page(), seconds=1)

    assert (out, verdict.cause) == (0, Cause.OK)


async def test_a_turn_that_cannot_come_in_time_is_told_at_once() -> None:
    """A quota that is used up for an hour: holding the router's worker for ten seconds would help nobody."""
    async with bench() as b:
        headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Limit": "1000", "X-RateLimit-Reset": "3600"}
        b.impact.answers = [ImpactResponse(429, b"", headers)]
        await b.deliveries.deliver(order("o-1"), seconds=1)
        loop = asyncio.get_running_loop()
        started = loop.time()
        verdict = await b.deliveries.deliver(order("o-2"), seconds=300)
        took = loop.time() - started

    assert (verdict.result, verdict.cause) == ("retry", Cause.WAITING)
    assert "quota" in verdict.text
    assert took < 100


async def test_the_metrics_and_the_report_tell_what_is_going_on() -> None:
    """Attempts by cause; what is under way by account."""
    async with bench() as b:
        b.impact.gate = asyncio.Event()
        under_way = asyncio.create_task(b.deliveries.deliver(order(), seconds=60))
        async with asyncio.timeout(60):
            # Measured once a second.
            while b.metric("impact_plugin_delivery_in_flight", endpoint_path="conversions") != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        (report,) = b.deliveries.report()
        b.impact.gate.set()
        await under_way

    assert (report.account, report.endpoint_path, report.statistics.in_flight) == ("IRtest", "conversions", 1)
    assert b.metric("impact_plugin_attempts_total", endpoint_path="conversions", cause="ok") == 1
    assert b.metric("impact_plugin_ledger_orders") == 1


Start = Callable[..., Awaitable[Service]]
FORM = {"CampaignId": "23224", "EventDate": "2026-09-10T10:00:00Z"}


async def proxy(http: aiohttp.ClientSession, service: Service, url: str, **form: str) -> dict[str, Any]:
    """Ask the service to deliver a page load; the job's status and text."""
    body = {
        "endpoint": f"{url}/PageLoad",
        "method": "POST",
        "metadata": [{"jobId": 1}],
        "body": {"FORM": {**FORM, **form}},
        "destinationConfig": {"accountSID": "IRtest"},
    }
    headers = {"RdProxy-Timeout": "3000"}
    async with http.post(f"{service.url}/v1/destinations/impact/proxy", json=body, headers=headers) as response:
        output: dict[str, Any] = (await response.json())["output"]
        return output


async def test_one_account_has_so_many_under_way(http: aiohttp.ClientSession, start: Start, impact: FakeImpact) -> None:
    """``delivery.account_connections`` bounds what one account's endpoint sees from us at the same time."""
    service = await start(delivery={"account_connections": 2})
    impact.script([{"delay": 0.1}])
    replies = await asyncio.gather(*(proxy(http, service, impact.url, CustomProfileId=f"v{n}") for n in range(8)))
    arrived = sorted(call.received_at for call in impact.calls)
    together = max(sum(first <= one < first + 0.09 for one in arrived) for first in arrived)

    assert [reply["status"] for reply in replies] == [200] * 8
    assert together == 2


async def test_too_many_that_wait_are_told_to_come_again(
    http: aiohttp.ClientSession, start: Start, impact: FakeImpact
) -> None:
    """``delivery.max_waiting``: a 429 for the job, at once, and not a dropped connection."""
    service = await start(delivery={"connections": 1, "max_waiting": 8})
    impact.script([{"delay": 0.2}])
    replies = await asyncio.gather(*(proxy(http, service, impact.url, CustomProfileId=f"v{n}") for n in range(6)))
    busy = [reply for reply in replies if reply["message"].startswith("busy: ")]

    assert sorted(reply["status"] for reply in replies) == [200, 200, 200, 429, 429, 429]
    assert len(busy) == 3


@pytest.mark.parametrize(("ordering", "expected"), [("lane", True), ("none", False)])
async def test_a_visitors_requests_go_in_order_unless_told_otherwise(
    http: aiohttp.ClientSession, start: Start, impact: FakeImpact, ordering: str, expected: bool
) -> None:
    """``delivery.ordering``: one at a time for a visitor, or all at once."""
    service = await start(delivery={"ordering": ordering})
    impact.script([{"delay": 0.1}])
    await asyncio.gather(
        *(proxy(http, service, impact.url, CustomProfileId="v", PageUrl=f"https://x/{n}") for n in range(3))
    )
    arrived = [call.received_at for call in impact.calls]

    assert (arrived[2] - arrived[0] > 0.19) == expected


async def test_the_operator_sees_why_an_account_waits(
    http: aiohttp.ClientSession, start: Start, impact: FakeImpact
) -> None:
    """``/debug/limits`` on the operator's port."""
    service = await start()
    impact.script([{"status": 429, "rate_limit": "x-ratelimit", "remaining": 0, "reset_after": 600}])
    await proxy(http, service, impact.url, CustomProfileId="v")
    async with http.get(f"{service.operator_url}/debug/limits") as response:
        (account,) = (await response.json())["accounts"]

    assert (account["account"], account["endpoint_path"]) == ("IRtest", "pageload")
    assert account["statistics"]["state"] == "closed"
    assert account["statistics"]["gate"] == "quota"
    assert 500 < account["statistics"]["closed_for"] < 800
