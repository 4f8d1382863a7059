"""StrictRudder: rudder-server's side of the transformer contract, for tests and load runs without a rudder-server.

It batches, requests, waits and delivers as the real router does, with its headers and connections, and raises a
:class:`~impact_plugin.rudder.refusals.RudderRefusal` where the real one would crash, abort, stall or lose events. It
does not keep the events of a user in order, and keeps jobs in memory only.

Sources, all in https://github.com/rudderlabs/rudder-server:
``processor/internal/transformer/destination_transformer/destination_transformer.go``,
``router/transformer/transformer.go``, ``router/network.go``, ``router/worker.go`` and
``services/transformer/features_impl.go``.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import aiohttp
import anyio
import msgspec
from yarl import URL

from impact_plugin.rudder.bodies import Built, QueuedEvent, Route, processor_body, proxy_body, router_body
from impact_plugin.rudder.feature_checks import TransformerFeatures, check_features
from impact_plugin.rudder.go import go_time
from impact_plugin.rudder.jobs import JobResult
from impact_plugin.rudder.refusals import RouterPanic, RudderRefusal, StalledForever
from impact_plugin.rudder.replies import (
    TransformerReply,
    check_processor_reply,
    check_proxy_v0_reply,
    check_proxy_v1_reply,
    check_router_reply,
)
from impact_plugin.rudder.request_objects import wire_request
from impact_plugin.rudder.retries import (
    back_pressure_wait,
    backoff,
    first_state,
    next_state,
    processor_outcome,
    transport_wait,
)

Transform = Literal["processor", "router"]
Delivery = Literal["direct", "proxy"]
ProxyVersion = Literal["v0", "v1"]

SUB_JOB = 400
"""Events of a processor sub-job. The chunks of one are sent at the same time; sub-jobs follow one another."""
MAX_CONNECTIONS = 100
MAX_FAULTS = 31
"""Attempts at a request that fails on the way, before the panic."""
ROUTER_RETRY_SLEEP = 0.1
FEATURES_POLL = 10.0
DELIVERY_TIMEOUT = 10.0
KEPT_BODY = 10 * 1024

_AGENT = {"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}
_TRANSFORM_HEADERS = {
    "Content-Type": "application/json; charset=utf-8",
    "X-Feature-Gzip-Support": "?1",
    "X-Feature-Filter-Code": "?1",
}
_COMPACTED = {"X-Content-Format": "json+compactedv1"}
_FAULTS = (aiohttp.ClientError, TimeoutError, OSError)

_T = TypeVar("_T")


class Summary(msgspec.Struct, frozen=True):
    """The result of a run: the number of events, and how many ended in each state and with each last status."""

    events: int
    states: dict[str, int]
    statuses: dict[int, int]


class _Answer(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes


class StrictRudder:
    """A client that treats a transformer as rudder-server does. Use it as an async context manager.

    ``url`` is the base address (DEST_TRANSFORM_URL); with ``trailing_slash`` the paths of processor and features begin
    with two slashes, as they do if you configure one too many. ``keep_alive=False``, the router's default, opens a
    connection for each request. ``concurrency`` is the number of router workers and of deliveries in flight.
    ``timeout`` (seconds) limits a transform request, and ``patience`` the number of 503s with should-retry for a chunk,
    which the real router does not limit. ``sleep`` and ``clock`` (Unix seconds) are for tests.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of the real router, given by name
        self,
        url: str,
        *,
        destination_config: dict[str, Any],
        destination_id: str = "dst-impact-1",
        destination_type: str = "IMPACT",
        source_id: str = "src-http-1",
        keep_alive: bool = False,
        trailing_slash: bool = False,
        processor_batch: int = 100,
        router_batch: int = 20,
        concurrency: int = 64,
        timeout: float = 600.0,
        patience: int = 1000,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._base = url.rstrip("/")
        self._untrimmed = self._base + "/" * trailing_slash
        self._route = Route(
            destination_config, destination_id=destination_id, destination_type=destination_type, source_id=source_id
        )
        self._keep_alive = keep_alive
        self._processor_batch = processor_batch
        self._router_batch = router_batch
        self._concurrency = concurrency
        self._timeout = timeout
        self._patience = patience
        self._sleep = sleep
        self._clock = clock
        self._last_job = 0
        self._compacted = False

    async def __aenter__(self) -> Self:
        if self._keep_alive:
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=30.0)
        else:
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, force_close=True)
        self._transformer = _session(connector, self._timeout)
        self._destination = _session(aiohttp.TCPConnector(limit=MAX_CONNECTIONS), DELIVERY_TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transformer.close()
        await self._destination.close()

    async def wait_for_features(self, *, polls: int = 30) -> TransformerFeatures:
        """Poll ``GET /features`` every 10 s until it answers, and use compaction from then on if the answer offers it.

        Raises what :func:`~impact_plugin.rudder.feature_checks.check_features` raises, and StalledForever if ``polls``
        polls did not reach the transformer: the real router would not boot, and continue to wait.
        """
        for poll in range(polls):
            if poll:
                await self._sleep(FEATURES_POLL)
            answer = await self._ask("GET", f"{self._untrimmed}/features", {}, None)
            if answer is not None:
                features = check_features(answer.status, answer.body)
                self._compacted = features.compacted
                return features
        raise StalledForever(f"no answer from /features in {polls} polls")

    async def send_processor(
        self, events: Sequence[dict[str, Any]], *, compacted: bool | None = None
    ) -> list[JobResult]:
        """Transform events as the processor does: in chunks of 100, those of a sub-job of 400 at the same time.

        ``compacted`` None follows the features. Returns a result for each event, in order. Raises what
        :func:`~impact_plugin.rudder.replies.check_processor_reply` raises, RouterPanic after 31 faults of a chunk
        (transport or HTTP), and StalledForever after more 503s than its patience.
        """
        return await self._processor(self._queue(events), compacted)

    async def send_router(self, events: Sequence[dict[str, Any]], *, compacted: bool | None = None) -> list[JobResult]:
        """Transform events as router workers do: in batches of 20, up to ``concurrency`` at the same time.

        ``compacted`` None follows the features. Returns a result for each event, in order. Raises what
        :func:`~impact_plugin.rudder.replies.check_router_reply` raises, and RouterPanic after 31 transport faults
        100 ms apart.
        """
        return await self._router(self._queue(events), compacted)

    async def deliver(
        self,
        results: Sequence[JobResult],
        *,
        via: Delivery = "direct",
        proxy_version: ProxyVersion = "v1",
        attempt: int = 0,
    ) -> list[JobResult]:
        """Deliver the requests of transformed jobs; returns all ``results`` in order, the delivered ones updated.

        ``direct`` sends them to their endpoint as Go does (10 s; a transport error is a 504); ``proxy`` gives them to
        the plugin with ``RdProxy-Timeout`` in milliseconds (no answer is a 500). Jobs with the same request object are
        sent once. ``attempt`` counts earlier attempts. Raises what the checks of proxy replies raise.
        """
        groups: dict[int, list[JobResult]] = {}
        for result in results:
            if result.state == "transformed":
                groups.setdefault(id(result.request), []).append(result)
        if via == "direct":
            calls = [partial(self._deliver_direct, group) for group in groups.values()]
        else:
            calls = [partial(self._deliver_by_proxy, group, proxy_version, attempt) for group in groups.values()]
        delivered = {result.job_id: result for group in await _in_order(calls, self._concurrency) for result in group}
        return [delivered.get(result.job_id, result) for result in results]

    async def run(
        self,
        events: Sequence[dict[str, Any]],
        *,
        transform: Transform = "processor",
        delivery: Delivery | None = None,
        proxy_version: ProxyVersion = "v1",
        attempts: int = 1,
        on_progress: Callable[[int], None] | None = None,
    ) -> Summary:
        """Transform events, deliver them unless ``delivery`` is None, and count what became of them.

        A job in state ``retry`` gets up to ``attempts`` attempts in all, after the router's back-off: processor jobs
        are delivered again, router jobs transformed again. ``on_progress`` receives the number of events done so far.
        """
        states: Counter[str] = Counter()
        statuses: Counter[int] = Counter()
        done = 0
        window = SUB_JOB if transform == "processor" else self._router_batch * self._concurrency
        for part in _chunks(events, window):
            results = await self._settle(self._queue(part), transform, delivery, proxy_version, attempts)
            states.update(result.state for result in results)
            statuses.update(result.status for result in results)
            done += len(results)
            if on_progress is not None:
                on_progress(done)
        return Summary(done, dict(states), dict(statuses))

    def _queue(self, events: Iterable[dict[str, Any]]) -> list[QueuedEvent]:
        queued = [QueuedEvent(job_id, event) for job_id, event in enumerate(events, self._last_job + 1)]
        self._last_job += len(queued)
        return queued

    async def _settle(
        self,
        queued: Sequence[QueuedEvent],
        transform: Transform,
        delivery: Delivery | None,
        proxy_version: ProxyVersion,
        attempts: int,
    ) -> list[JobResult]:
        settled: dict[int, JobResult] = {}
        transformed: dict[int, JobResult] = {}
        started = self._clock()
        for attempt in range(1, attempts + 1):
            if transform == "router" or attempt == 1:
                send = self._router if transform == "router" else self._processor
                transformed = {result.job_id: result for result in await send(queued, None)}
            results = [transformed[item.job_id] for item in queued]
            if delivery is not None:
                results = await self.deliver(results, via=delivery, proxy_version=proxy_version, attempt=attempt - 1)
            settled |= {result.job_id: self._after(result, attempt, started) for result in results}
            queued = [_next_attempt(item, started) for item in queued if settled[item.job_id].state == "retry"]
            if not queued or attempt == attempts:
                break
            await self._sleep(backoff(attempt))
        return list(settled.values())

    def _after(self, result: JobResult, attempt: int, started: float) -> JobResult:
        if result.state != "retry":
            return result
        state = next_state(result.status, attempt=attempt, first_failed_at=started, now=self._clock())
        return msgspec.structs.replace(result, state=state)

    async def _processor(self, queued: Sequence[QueuedEvent], compacted: bool | None) -> list[JobResult]:
        results: list[JobResult] = []
        for sub_job in _chunks(queued, SUB_JOB):
            calls = [
                partial(self._processor_chunk, chunk, compacted) for chunk in _chunks(sub_job, self._processor_batch)
            ]
            for reply in await _in_order(calls, MAX_CONNECTIONS):
                results.extend(reply.jobs)
        return results

    async def _router(self, queued: Sequence[QueuedEvent], compacted: bool | None) -> list[JobResult]:
        calls = [partial(self._router_batch_call, batch, compacted) for batch in _chunks(queued, self._router_batch)]
        return [result for reply in await _in_order(calls, self._concurrency) for result in reply.jobs]

    async def _processor_chunk(self, queued: Sequence[QueuedEvent], compacted: bool | None) -> TransformerReply:
        compact = self._compacted if compacted is None else compacted
        built = processor_body(queued, self._route, now=self._clock(), compacted=compact)
        url = f"{self._untrimmed}/v0/destinations/{self._route.destination_type.lower()}"
        waits = faults = 0
        while True:
            answer = await self._ask("POST", url, _transform_headers(compacted=compact), built.body)
            outcome = "backoff_then_panic" if answer is None else processor_outcome(answer.status, answer.headers)
            waits, faults = waits + (outcome == "retry"), faults + (outcome == "backoff_then_panic")
            if waits > self._patience:
                raise StalledForever(f"{waits} times 503 with should-retry", [job.job_id for job in built.jobs])
            if answer is None and faults == MAX_FAULTS:
                raise RouterPanic(f"no answer from {url} in {faults} tries", [job.job_id for job in built.jobs])
            if answer is not None and (outcome in {"reply", "aborted"} or faults == MAX_FAULTS):
                return check_processor_reply(built.jobs, answer.status, answer.headers, answer.body)
            await self._sleep(back_pressure_wait(waits) if outcome == "retry" else transport_wait(faults))

    async def _router_batch_call(self, queued: Sequence[QueuedEvent], compacted: bool | None) -> TransformerReply:
        compact = self._compacted if compacted is None else compacted
        built = router_body(queued, self._route, now=self._clock(), compacted=compact)
        url = f"{self._base}/routerTransform"
        for fault in range(MAX_FAULTS):
            if fault:
                await self._sleep(ROUTER_RETRY_SLEEP)
            answer = await self._ask("POST", url, _transform_headers(compacted=compact), built.body)
            if answer is not None:
                return check_router_reply(built.jobs, answer.status, answer.headers, answer.body)
        raise RouterPanic(f"no answer from {url} in {MAX_FAULTS} tries", [job.job_id for job in built.jobs])

    async def _deliver_by_proxy(
        self, group: Sequence[JobResult], version: ProxyVersion, attempt: int
    ) -> list[JobResult]:
        request = group[0].request or {}
        built = proxy_body(request, [result.job_id for result in group], self._route, version=version, attempt=attempt)
        url = f"{self._base}/{version}/destinations/{self._route.destination_type.lower()}/proxy"
        headers = {"Content-Type": "application/json", "RdProxy-Timeout": str(int(DELIVERY_TIMEOUT * 1000))}
        answer = await self._ask("POST", url, headers, built.body, DELIVERY_TIMEOUT + self._timeout)
        if answer is None:
            return [_delivered(result, 500, "no answer from the proxy") for result in group]
        reply = _check_proxy(version, built, answer)
        return [
            _delivered(before, after.status, after.error, after.stat_tags)
            for before, after in zip(group, reply.jobs, strict=True)
        ]

    async def _deliver_direct(self, group: Sequence[JobResult]) -> list[JobResult]:
        request = group[0].request or {}
        try:
            url, headers, body = wire_request(request)
            method = request.get("method") or "GET"
            async with self._destination.request(method, url, headers=headers, data=body) as got:
                status, text = got.status, await _response_text(got)
        except _FAULTS as error:
            status, text = HTTPStatus.GATEWAY_TIMEOUT, f"504 Unable to make the request: {error}"
        except ValueError as error:
            status, text = HTTPStatus.BAD_REQUEST, f"400 Unable to construct the request: {error}"
        return [_delivered(result, int(status), text if status >= 300 else "") for result in group]

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, seconds: float | None = None
    ) -> _Answer | None:
        # None means any transport fault: refused, reset, timed out, cut off in the body.
        timeout = aiohttp.ClientTimeout(total=self._timeout if seconds is None else seconds)
        # encoded=True keeps a double slash as it is.
        address = URL(url, encoded=True)
        try:
            async with self._transformer.request(
                method, address, headers={**_AGENT, **headers}, data=body, timeout=timeout
            ) as got:
                return _Answer(got.status, dict(got.headers), await got.read())
        except _FAULTS:
            return None


async def _response_text(got: aiohttp.ClientResponse) -> str:
    try:
        body = await got.read()
    except _FAULTS as error:
        # The status was received, and the router keeps it.
        return f"Failed to read response body: {error}"
    kind, _, detail = got.content_type.partition("/")
    if kind == "text" or (kind == "application" and detail.rpartition("+")[2] in {"json", "xml"}):
        return body[:KEPT_BODY].decode(errors="replace")
    return "redacted due to unsupported content-type"


def _delivered(result: JobResult, status: int, error: str, stat_tags: dict[str, str] | None = None) -> JobResult:
    tags = stat_tags or {}
    return msgspec.structs.replace(result, status=status, state=first_state(status), error=error, stat_tags=tags)


def _check_proxy(version: ProxyVersion, built: Built, answer: _Answer) -> TransformerReply:
    check = check_proxy_v1_reply if version == "v1" else check_proxy_v0_reply
    return check(built.jobs, answer.status, answer.headers, answer.body)


def _next_attempt(item: QueuedEvent, started: float) -> QueuedEvent:
    first = item.first_attempted_at or go_time(started)
    return msgspec.structs.replace(item, attempt=item.attempt + 1, first_attempted_at=first)


def _transform_headers(*, compacted: bool) -> dict[str, str]:
    return _TRANSFORM_HEADERS | _COMPACTED if compacted else _TRANSFORM_HEADERS


def _session(connector: aiohttp.TCPConnector, seconds: float) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        # Go sends none of these by default.
        skip_auto_headers=("Accept", "User-Agent", "Content-Type"),
    )


def _chunks(items: Sequence[_T], size: int) -> list[Sequence[_T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


async def _in_order(calls: Sequence[Callable[[], Awaitable[_T]]], limit: int) -> list[_T]:
    """Run calls, up to ``limit`` at the same time; returns their results in order, or raises the first refusal."""
    limiter = anyio.CapacityLimiter(limit)
    results: dict[int, _T] = {}

    async def one(index: int, call: Callable[[], Awaitable[_T]]) -> None:
        async with limiter:
            results[index] = await call()

    try:
        async with anyio.create_task_group() as group:
            for index, call in enumerate(calls):
                group.start_soon(one, index, call)
    except ExceptionGroup as faults:
        refused, _ = faults.split(RudderRefusal)
        if refused is None:
            raise
        raise _first(refused) from faults
    return [results[index] for index in range(len(calls))]


def _first(group: ExceptionGroup[RudderRefusal]) -> RudderRefusal:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, ExceptionGroup) else inner
