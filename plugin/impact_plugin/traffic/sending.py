"""Send recorded events to a running service again: in order, one request at a time, each until it is acknowledged.

Events keep their ids and times, so that the service recognizes what it had before. After a lost reply the same request
goes out again; no event is passed over, because an order must not overtake its click.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Final, Literal, TypeAlias

import aiohttp
import msgspec
from anyio import CancelScope, move_on_after, sleep

from impact_plugin.errors import ImpactPluginError
from impact_plugin.ingest.adapters import content_id
from impact_plugin.process.background import open_background
from impact_plugin.rudder.bodies import QueuedEvent
from impact_plugin.rudder.jobs import JobResult, RequestJob
from impact_plugin.rudder.refusals import RudderRefusal
from impact_plugin.rudder.replies import (
    TransformerReply,
    check_processor_reply,
    check_proxy_v1_reply,
    check_router_reply,
)
from impact_plugin.rudder.retries import processor_outcome
from impact_plugin.traffic.reading import ReadingError, RecordedDestination, Traffic
from impact_plugin.traffic.sent import MAX_DETAIL, TAKEN, Sent
from impact_plugin.traffic.shapes import SENDERS, Post, Shape, ingest_post, proxy_post, transform_post
from impact_transformers import UndecodableEventError, decode_object
from impact_transformers.events import UNREADABLE
from impact_transformers.normalize import redact_emails

REPLY_SECONDS: Final = 60.0
MIN_REPLY_SECONDS: Final = 5.0
"""How long to wait for a reply, however little patience is left."""

FIRST_BACKOFF_SECONDS: Final = 0.5
MAX_BACKOFF_SECONDS: Final = 10.0
MAX_RETRY_AFTER_SECONDS: Final = 60.0

MAX_BATCH_BYTES: Final = 450_000
"""The Segment HTTP API takes 500 kB. https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/"""

POLL_SECONDS: Final = 0.2
"""How often to check whether somebody wants to stop."""

REFUSALS: Final = (400, 413)


class SendingError(ImpactPluginError):
    """The service does not accept the events; the message says why. What it accepted before is counted."""


class StoppedError(ImpactPluginError):
    """Somebody asked to stop."""


class PseudonymsError(SendingError):
    """A file holds an event from one of our own recordings, whose customer is a pseudonym."""


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """An event as the file has it, numbered from 1; ``event`` is None if it is not a JSON object."""

    number: int
    raw: msgspec.Raw
    event: dict[str, Any] | None


class _Reply(msgspec.Struct, frozen=True):
    """A reply; status 0 if there was none, with the cause as the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def detail(self) -> str:
        """Status and text, for the operator."""
        text = self.body.decode("utf-8", "replace")
        return redact_emails(f"{self.status} {text}" if self.status else text)[:MAX_DETAIL]


class _ItemResult(msgspec.Struct, frozen=True):
    index: int
    status: str
    error: str = ""


class _Refusal(msgspec.Struct, frozen=True):
    """The service's reply to a request that it refuses as a whole."""

    success: Literal[False]
    error: str


class _IngestReply(msgspec.Struct, frozen=True):
    """The reply of the port for senders; for a single event that was stored it has no counts."""

    success: Literal[True]
    accepted: int | None = None
    rejected: int = 0
    duplicates: int = 0
    filtered: int = 0
    results: list[_ItemResult] = []

    def counts(self, events: int) -> list[tuple[str, int]]:
        """Count the outcomes of the request's events."""
        found = [("duplicate", self.duplicates), ("filtered", self.filtered), ("rejected", self.rejected)]
        stored = events - sum(count for _, count in found) if self.accepted is None else self.accepted
        return [("held", stored), *found]


Check: TypeAlias = Callable[[Sequence[RequestJob], int, Mapping[str, str], bytes], TransformerReply]

_ingest_replies: Final = msgspec.json.Decoder(_IngestReply)
_refusals: Final = msgspec.json.Decoder(_Refusal)


def batches(
    traffic: Traffic, size: int, done: int, stopping: Callable[[], bool], *, pseudonyms: bool = False
) -> Iterator[list[Recorded]]:
    """Yield the events after the first ``done`` in batches, of ``size`` events at most and of bytes for one request.

    Raises :class:`StoppedError`, :class:`ReadingError`, and :class:`PseudonymsError` for an event of a recording unless
    ``pseudonyms`` allows it; the last two after the batch before the fault.
    """
    batch: list[Recorded] = []
    space = MAX_BATCH_BYTES
    try:
        for one in _numbered(traffic, done, stopping, pseudonyms=pseudonyms):
            if batch and (len(batch) == size or len(one.raw) > space):
                yield batch
                batch, space = [], MAX_BATCH_BYTES
            batch.append(one)
            space -= len(one.raw)
    except (ReadingError, PseudonymsError):
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _numbered(traffic: Traffic, done: int, stopping: Callable[[], bool], *, pseudonyms: bool) -> Iterator[Recorded]:
    traffic.whole = True
    subjects = (subject for subject in traffic if not isinstance(subject, RecordedDestination))
    for number, subject in enumerate(subjects, 1):
        if stopping():
            raise StoppedError("stopped while reading")
        if number <= done:
            continue
        if subject.request is not None and not pseudonyms:
            raise PseudonymsError(
                f"event {number} comes from a recording: its customer is a pseudonym; allow it with --pseudonyms"
            )
        yield Recorded(number, subject.message, _decoded(subject.message))


def _decoded(raw: msgspec.Raw) -> dict[str, Any] | None:
    try:
        return decode_object(raw)
    except UndecodableEventError:
        return None


def _queued(number: int, event: dict[str, Any]) -> QueuedEvent:
    """The event as a router holds it: with an id, the same at every attempt."""
    return QueuedEvent(number, event if event.get("messageId") else {**event, "messageId": content_id(event)})


class Sending:
    """Sends batches, one after the other.

    ``patience`` is how many seconds the service may be silent or unable before the sending is given up.
    """

    def __init__(
        self,
        shape: Shape,
        sent: Sent,
        *,
        patience: float,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._shape = shape
        self._sent = sent
        self._counted = Sent()
        self._patience = patience
        self._stopping = stopping
        self._session = aiohttp.ClientSession(f"http://{shape.host}")

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.close()

    async def send(self, batch: Sequence[Recorded]) -> None:
        """Send a batch until the service has accepted or rejected each of its events, and count the outcomes.

        Raises :class:`SendingError` and :class:`StoppedError`; then nothing of the batch is counted, and the next run
        sends all of it again.
        """
        self._counted = Sent(len(batch))
        readable = [one for one in batch if one.event is not None]
        if readable and self._shape.via in SENDERS:
            await self._post(readable)
        elif readable:
            await self._transform(readable)
        for one in batch:
            if one.event is None:
                self._counted.count("rejected", 1, f"event {one.number} is not a JSON object")
        self._sent.add(self._counted)

    async def _post(self, batch: Sequence[Recorded]) -> None:
        """Post to the port for senders; if it refuses the request as a whole, try the halves."""
        raws = [one.raw for one in batch]
        _, reply = await self._reply(lambda _: ingest_post(raws, self._shape), _may_succeed_later)
        if reply.status == 200:
            self._count_ingested(batch, reply)
        elif not _is_refusal(reply):
            raise SendingError(f"{self._shape.host}: does not accept events of this source: {reply.detail}")
        elif len(batch) == 1:
            self._counted.count("rejected", 1, f"event {batch[0].number}: {reply.detail}")
        else:
            middle = len(batch) // 2
            await self._post(batch[:middle])
            await self._post(batch[middle:])

    def _count_ingested(self, batch: Sequence[Recorded], reply: _Reply) -> None:
        host = self._shape.host
        try:
            ingested = _ingest_replies.decode(reply.body)
        except UNREADABLE:
            raise SendingError(f"{host}: is not the service's port for senders: {reply.detail}") from None
        counts = ingested.counts(len(batch))
        if sum(count for _, count in counts) != len(batch):
            raise SendingError(f"{host}: its reply does not account for all of {len(batch)} events: {reply.detail}")
        for outcome, count in counts:
            if count:
                self._counted.count(outcome, count)
        for one in ingested.results:
            if one.status == "rejected" and one.index < len(batch):
                self._counted.count("rejected", 0, f"event {batch[one.index].number}: {one.error}")

    async def _transform(self, batch: Sequence[Recorded]) -> None:
        """Transform as a router does; with the proxy, deliver each request that results."""
        try:
            queued = [_queued(one.number, one.event) for one in batch if one.event is not None]
            made = transform_post(queued, self._shape)
        except (ValueError, ArithmeticError, RecursionError) as error:
            await self._transform_each(batch, error)
            return
        post, reply = await self._reply(lambda _: made, _router_retries)
        check = check_router_reply if self._shape.via == "router" else check_processor_reply
        for one, result in zip(batch, self._checked(check, post, reply), strict=True):
            if result.state == "transformed" and self._shape.via == "proxy":
                await self._deliver(one, result.request or {})
            else:
                self._count_job(one, result)

    async def _transform_each(self, batch: Sequence[Recorded], error: Exception) -> None:
        """Transform one by one, so that a number or a depth that no router can pass on rejects only its own event."""
        if len(batch) > 1:
            for one in batch:
                await self._transform([one])
        else:
            self._counted.count("rejected", 1, f"event {batch[0].number}: {type(error).__name__}")

    async def _deliver(self, one: Recorded, request: Mapping[str, Any]) -> None:
        def result(post: Post, reply: _Reply) -> JobResult:
            return self._checked(check_proxy_v1_reply, post, reply)[0]

        post, reply = await self._reply(
            lambda attempt: proxy_post(request, one.number, self._shape, attempt),
            lambda post, reply: _router_retries(post, reply) or result(post, reply).state == "retry",
        )
        self._count_job(one, result(post, reply))

    def _checked(self, check: Check, post: Post, reply: _Reply) -> Sequence[JobResult]:
        """Read the reply as a router does; raises :class:`SendingError` for one that a router could not use."""
        try:
            return check(post.jobs, reply.status, reply.headers, reply.body).jobs
        except RudderRefusal as refusal:
            raise SendingError(f"{self._shape.host}: a router could not use its reply: {refusal}") from refusal

    def _count_job(self, one: Recorded, result: JobResult) -> None:
        outcome = {"succeeded": "sent", "aborted": "rejected", "retry": "failed"}.get(result.state, result.state)
        detail = "" if outcome in TAKEN else f"event {one.number}: {result.status} {result.error}"
        self._counted.count(outcome, 1, detail)

    async def _reply(self, post: Callable[[int], Post], later: Callable[[Post, _Reply], bool]) -> tuple[Post, _Reply]:
        """Send a request until its reply is final; ``post`` makes the request of each attempt, from 0.

        Raises :class:`SendingError` when patience runs out.
        """
        deadline, attempt = monotonic() + self._patience, 0
        while True:
            made = post(attempt)
            reply = await self._in_time(made, max(MIN_REPLY_SECONDS, deadline - monotonic()))
            if not later(made, reply):
                return made, reply
            wait = _backoff(reply, attempt)
            if monotonic() + wait > deadline:
                raise SendingError(f"{self._shape.host}: accepted nothing for {self._patience:g} s: {reply.detail}")
            await self._pause(wait)
            attempt += 1
            self._sent.repeats += 1

    async def _in_time(self, post: Post, seconds: float) -> _Reply:
        """Send a request and wait for its reply, until the time is up or somebody wants to stop."""
        reply: _Reply | None = None
        async with open_background() as tasks:
            tasks.start_soon(self._cancel_when_stopping, tasks.cancel_scope)
            with move_on_after(min(seconds, REPLY_SECONDS)):
                reply = await self._exchange(post)
        if reply is not None:
            return reply
        self._check_stop()
        return _Reply(0, {}, f"no reply in {seconds:.0f} s".encode())

    async def _cancel_when_stopping(self, scope: CancelScope) -> None:
        while not self._stopping():  # noqa: ASYNC110 - whoever wants to stop is asked, and sets no event
            await sleep(POLL_SECONDS)
        scope.cancel()

    def _check_stop(self) -> None:
        if self._stopping():
            raise StoppedError("stopped while waiting for the service")

    async def _exchange(self, post: Post) -> _Reply:
        try:
            # A redirect may lead to a machine that nobody allowed.
            async with self._session.post(
                post.path, headers=post.headers, data=post.body, allow_redirects=False
            ) as response:
                return _Reply(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return _Reply(0, {}, f"no reply ({type(error).__name__})".encode())

    async def _pause(self, seconds: float) -> None:
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            self._check_stop()
            await sleep(min(left, POLL_SECONDS))


def _is_refusal(reply: _Reply) -> bool:
    """Whether the service itself refuses this request: other servers answer 400 to anything that they do not know."""
    try:
        _refusals.decode(reply.body)
    except UNREADABLE:
        return False
    return reply.status in REFUSALS


def _may_succeed_later(_post: Post, reply: _Reply) -> bool:
    return reply.status in (0, 408, 429) or reply.status >= 500


def _router_retries(_post: Post, reply: _Reply) -> bool:
    return not reply.status or processor_outcome(reply.status, reply.headers) in ("retry", "backoff_then_panic")


def _backoff(reply: _Reply, attempt: int) -> float:
    """Seconds until the next attempt: what Retry-After asks for, else doubling; both are bounded."""
    asked = reply.headers.get("Retry-After", "")
    if asked.isdecimal():
        return min(float(asked), MAX_RETRY_AFTER_SECONDS)
    return float(min(FIRST_BACKOFF_SECONDS * 2.0 ** min(attempt, 16), MAX_BACKOFF_SECONDS))


async def send_all(
    pending: Iterable[Sequence[Recorded]],
    sending: Sending,
    taken: Callable[[], None],
) -> bool:
    """Send batch after batch, calling ``taken`` after each; False if somebody asked to stop before the end."""
    try:
        for batch in pending:
            await sending.send(batch)
            taken()
    except StoppedError:
        return False
    return True
