"""Recorded events sent once more to a running service: in their order, one request at a time, until it took each.

What is sent is what was recorded, with its ids and times, so that the service knows what it had before. Where an answer
was lost the same request goes out again; nothing is skipped over, because an order must not overtake its click.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Final, Literal, TypeAlias

import aiohttp
import msgspec

from impact_plugin.errors import ImpactPluginError
from impact_plugin.ingest.adapters import content_id
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
from impact_plugin.tasks import finish
from impact_plugin.traffic.reading import ReadingError, RecordedDestination, Traffic
from impact_plugin.traffic.sent import DETAIL, TAKEN, Sent
from impact_plugin.traffic.shapes import SENDERS, Post, Shape, ingest_post, proxy_post, transform_post
from impact_transformers import UndecodableEventError, decode_object
from impact_transformers.events import UNREADABLE
from impact_transformers.normalize import redact_emails

ANSWER_SECONDS: Final = 60.0
LEAST_ANSWER_SECONDS: Final = 5.0
"""For an answer, however little patience is left."""

FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 10.0
LONGEST_ASKED_WAIT: Final = 60.0
"""Of what a service may ask for in Retry-After."""

MOST_BATCH_BYTES: Final = 450_000
"""The Segment HTTP API takes 500 kB. https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/"""

LOOK_SECONDS: Final = 0.2
REFUSED: Final = (400, 413)


class SendingError(ImpactPluginError):
    """The service does not take the events; the message says why and what to do. What was taken is counted."""


class StoppedError(ImpactPluginError):
    """Somebody asked to stop while the service was being waited for."""


class PseudonymsError(SendingError):
    """An event of a recording of ours is among others; its customer is a pseudonym."""


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """An event as it stands in the file, and its number, from 1; ``event`` is None where nobody can read it."""

    number: int
    raw: msgspec.Raw
    event: dict[str, Any] | None


class _Answer(msgspec.Struct, frozen=True):
    """What came back; status 0 for no answer, whose kind of trouble is the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def detail(self) -> str:
        """In words, for an operator."""
        text = self.body.decode("utf-8", "replace")
        return redact_emails(f"{self.status} {text}" if self.status else text)[:DETAIL]


class _ItemReply(msgspec.Struct, frozen=True):
    index: int
    status: str
    error: str = ""


class _Refusal(msgspec.Struct, frozen=True):
    """What the service answers to a request that it does not take as it is."""

    success: Literal[False]
    error: str


class _IngestReply(msgspec.Struct, frozen=True):
    """What the port for senders answers; a single event that was stored has no counts."""

    success: Literal[True]
    accepted: int | None = None
    rejected: int = 0
    duplicates: int = 0
    filtered: int = 0
    results: list[_ItemReply] = []

    def counts(self, events: int) -> list[tuple[str, int]]:
        """How many of so many events ended how."""
        found = [("duplicate", self.duplicates), ("filtered", self.filtered), ("rejected", self.rejected)]
        stored = events - sum(count for _, count in found) if self.accepted is None else self.accepted
        return [("stored", stored), *found]


Check: TypeAlias = Callable[[Sequence[RequestJob], int, Mapping[str, str], bytes], TransformerReply]

_ingest_replies: Final = msgspec.json.Decoder(_IngestReply)
_refusals: Final = msgspec.json.Decoder(_Refusal)


def batches(
    traffic: Traffic, size: int, done: int, stopping: Callable[[], bool], *, pseudonyms: bool = False
) -> Iterator[list[Recorded]]:
    """The events after the first ``done``, a batch each time: so many, and so many bytes, as a request takes.

    Raises :class:`StoppedError`; and where the rest cannot be read, after what can be, :class:`ReadingError`, or
    :class:`PseudonymsError` for an event of a recording, if those are not allowed.
    """
    batch: list[Recorded] = []
    space = MOST_BATCH_BYTES
    try:
        for one in _numbered(traffic, done, stopping, pseudonyms=pseudonyms):
            if batch and (len(batch) == size or len(one.raw) > space):
                yield batch
                batch, space = [], MOST_BATCH_BYTES
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
            raise PseudonymsError(f"event {number} is of a recording: its customer is a pseudonym (see --pseudonyms)")
        yield Recorded(number, subject.message, _decoded(subject.message))


def _decoded(raw: msgspec.Raw) -> dict[str, Any] | None:
    try:
        return decode_object(raw)
    except UndecodableEventError:
        return None


def _queued(number: int, event: dict[str, Any]) -> QueuedEvent:
    """The event as a router has it: with an id, which must be the same at the next try."""
    return QueuedEvent(number, event if event.get("messageId") else {**event, "messageId": content_id(event)})


class Sending:
    """Sends batches, one after the other.

    ``patience`` is for how many seconds the service may answer nothing, or that it cannot now, before it is given up.
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
        """Send a batch until the service has taken or refused each event of it, and count how they ended.

        Raises :class:`SendingError` and :class:`StoppedError`; then nothing of the batch is counted, and it is to be
        sent again.
        """
        self._counted = Sent(len(batch))
        readable = [one for one in batch if one.event is not None]
        if readable and self._shape.via in SENDERS:
            await self._hand_over(readable)
        elif readable:
            await self._transform(readable)
        for one in batch:
            if one.event is None:
                self._counted.count("unreadable", 1, f"event {one.number} is no JSON object")
        self._sent.add(self._counted)

    async def _hand_over(self, batch: Sequence[Recorded]) -> None:
        """To the port for senders; of a request that is refused as a whole the halves are tried."""
        raws = [one.raw for one in batch]
        _, answer = await self._answer(lambda _: ingest_post(raws, self._shape), _may_be_taken_later)
        if answer.status == 200:
            self._count_ingested(batch, answer)
        elif not _is_refusal(answer):
            raise SendingError(f"{self._shape.host} does not take events of this source: {answer.detail}")
        elif len(batch) == 1:
            self._counted.count("rejected", 1, f"event {batch[0].number}: {answer.detail}")
        else:
            middle = len(batch) // 2
            await self._hand_over(batch[:middle])
            await self._hand_over(batch[middle:])

    def _count_ingested(self, batch: Sequence[Recorded], answer: _Answer) -> None:
        try:
            reply = _ingest_replies.decode(answer.body)
        except UNREADABLE:
            raise SendingError(f"{self._shape.host} is not the service's port for senders: {answer.detail}") from None
        counts = reply.counts(len(batch))
        if sum(count for _, count in counts) != len(batch):
            raise SendingError(f"{self._shape.host} does not account for all of {len(batch)} events: {answer.detail}")
        for ending, count in counts:
            if count:
                self._counted.count(ending, count)
        for one in reply.results:
            if one.status == "rejected" and one.index < len(batch):
                self._counted.count("rejected", 0, f"event {batch[one.index].number}: {one.error}")

    async def _transform(self, batch: Sequence[Recorded]) -> None:
        """As a router asks for its transformation; with the proxy each request that comes of it is delivered."""
        try:
            queued = [_queued(one.number, one.event) for one in batch if one.event is not None]
            made = transform_post(queued, self._shape)
        except (ValueError, ArithmeticError, RecursionError) as error:
            await self._transform_each(batch, error)
            return
        post, answer = await self._answer(lambda _: made, _router_comes_again)
        check = check_router_reply if self._shape.via == "router" else check_processor_reply
        for one, result in zip(batch, self._checked(check, post, answer), strict=True):
            if result.state == "transformed" and self._shape.via == "proxy":
                await self._deliver(one, result.request or {})
            else:
                self._count_job(one, result)

    async def _transform_each(self, batch: Sequence[Recorded], error: Exception) -> None:
        """A number or a depth that no router can pass on costs its own event only."""
        if len(batch) > 1:
            for one in batch:
                await self._transform([one])
        else:
            self._counted.count("unreadable", 1, f"event {batch[0].number}: {type(error).__name__}")

    async def _deliver(self, one: Recorded, request: Mapping[str, Any]) -> None:
        def result(post: Post, answer: _Answer) -> JobResult:
            return self._checked(check_proxy_v1_reply, post, answer)[0]

        post, answer = await self._answer(
            lambda attempt: proxy_post(request, one.number, self._shape, attempt),
            lambda post, answer: _router_comes_again(post, answer) or result(post, answer).state == "retry",
        )
        self._count_job(one, result(post, answer))

    def _checked(self, check: Check, post: Post, answer: _Answer) -> Sequence[JobResult]:
        """What a router makes of the answer, which is held against what it would not survive."""
        try:
            return check(post.jobs, answer.status, answer.headers, answer.body).jobs
        except RudderRefusal as refusal:
            raise SendingError(f"a router could not use the answer of {self._shape.host}: {refusal}") from refusal

    def _count_job(self, one: Recorded, result: JobResult) -> None:
        ending = {"succeeded": "delivered", "aborted": "rejected", "retry": "failed"}.get(result.state, result.state)
        self._counted.count(ending, 1, "" if ending in TAKEN else f"event {one.number}: {result.status} {result.error}")

    async def _answer(
        self, post: Callable[[int], Post], later: Callable[[Post, _Answer], bool]
    ) -> tuple[Post, _Answer]:
        """Send a request until the answer is one to go on with; ``post`` is given how often it went out before."""
        given_up, attempt = monotonic() + self._patience, 0
        while True:
            made = post(attempt)
            answer = await self._in_time(made, max(LEAST_ANSWER_SECONDS, given_up - monotonic()))
            if not later(made, answer):
                return made, answer
            wait = _wait(answer, attempt)
            if monotonic() + wait > given_up:
                raise SendingError(f"{self._shape.host} took nothing for {self._patience:g} s: {answer.detail}")
            await self._pause(wait)
            attempt += 1
            self._sent.repeats += 1

    async def _in_time(self, post: Post, seconds: float) -> _Answer:
        """Ask, and wait for no longer than that, nor than somebody wants to."""
        asking = asyncio.create_task(self._ask(post))
        until = monotonic() + min(seconds, ANSWER_SECONDS)
        try:
            while not asking.done():
                self._look()
                if monotonic() > until:
                    return _Answer(0, {}, f"no answer in {seconds:.0f} s".encode())
                await asyncio.wait((asking,), timeout=LOOK_SECONDS)
        finally:
            await finish((asking,), 0)
        return asking.result()

    def _look(self) -> None:
        if self._stopping():
            raise StoppedError("stopped while waiting for the service")

    async def _ask(self, post: Post) -> _Answer:
        try:
            # Where a redirection leads nobody has allowed.
            async with self._session.post(
                post.path, headers=post.headers, data=post.body, allow_redirects=False
            ) as response:
                return _Answer(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return _Answer(0, {}, f"no answer ({type(error).__name__})".encode())

    async def _pause(self, seconds: float) -> None:
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            self._look()
            await asyncio.sleep(min(left, LOOK_SECONDS))


def _is_refusal(answer: _Answer) -> bool:
    """Whether it is the service that says so, and of this request: any server answers 400 to what it does not know."""
    try:
        _refusals.decode(answer.body)
    except UNREADABLE:
        return False
    return answer.status in REFUSED


def _may_be_taken_later(_post: Post, answer: _Answer) -> bool:
    return answer.status in (0, 408, 429) or answer.status >= 500


def _router_comes_again(_post: Post, answer: _Answer) -> bool:
    return not answer.status or processor_outcome(answer.status, answer.headers) in ("retry", "backoff_then_panic")


def _wait(answer: _Answer, attempt: int) -> float:
    """How long until the next try: what the service asks for, else longer and longer; both have a bound."""
    asked = answer.headers.get("Retry-After", "")
    if asked.isdecimal():
        return min(float(asked), LONGEST_ASKED_WAIT)
    return float(min(FIRST_WAIT * 2.0 ** min(attempt, 16), LONGEST_WAIT))


async def send_all(
    pending: Iterable[Sequence[Recorded]],
    sending: Sending,
    taken: Callable[[], None],
) -> bool:
    """Send batch after batch, calling ``taken`` after each; whether all was sent, or somebody asked to stop."""
    try:
        for batch in pending:
            await sending.send(batch)
            taken()
    except StoppedError:
        return False
    return True
