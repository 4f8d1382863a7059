"""The port for senders of events: the Segment HTTP API and webhooks, and an answer that each of them understands.

200 says that the events are durable, and nothing else does. What is wrong with a single event is no error of the
request: senders repeat a whole request for it, Jitsu for a day, and Kafka Connect stops. Whatever may be better later
is 429 or 503 with Retry-After, which all of them repeat. Other statuses are never used: Jitsu takes 201 to 204 for a
failure, and Segment's SDKs 501 for a final one.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter, time
from typing import Any, Final, Literal, TypeAlias

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from anyio import Event, move_on_after
from anyio.abc import TaskGroup

from impact_plugin.config.sources import Routing, Source
from impact_plugin.errors import EnvelopeError, ImpactPluginError, StateUnavailableError
from impact_plugin.http.bodies import RequestBody, read_bounded
from impact_plugin.http.operator import Readiness
from impact_plugin.ingest.intake import Item, ItemResult, Status, Unusable
from impact_plugin.process.shutdown import Shutdown
from impact_plugin.protocols import segment_api, webhook
from impact_plugin.protocols.signatures import SignatureError, verify
from impact_plugin.spool.base import SpoolFullError
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.faults import RequestFault
from impact_plugin.telemetry.events.http import IngestAnswered, RequestRefused
from impact_transformers.events import UNREADABLE
from impact_transformers.normalize import as_text, redact_emails

Surface: TypeAlias = Literal["segment_api", "webhook"]
Take: TypeAlias = Callable[[Source, Sequence[Item | Unusable]], Awaitable[list[ItemResult]]]
Forget: TypeAlias = Callable[[Sequence[str], Sequence[str]], Awaitable[object]]

ANSWER_SECONDS: Final = 1.5
LARGE_ANSWER_SECONDS: Final = 4.0
LARGE: Final = 1024 * 1024
"""Jitsu gives a single event two seconds and a batch, which is large, five."""

IN_HAND: Final = 256 * 1024 * 1024
"""Bytes of bodies that are worked on at the same time; beyond it senders are asked to come again."""

BODY_SECONDS: Final = 30.0
"""How long a sender may take to send a body: it holds room that others could have."""

MOST_RESULTS: Final = 100
DETAIL: Final = 200
"""Jitsu's log shows 255 characters of an answer."""

WEBHOOK_METHODS: Final = ("POST", "PUT", "PATCH")

JSON: Final = "application/json"
_SLASHES: Final = re.compile(r"/{2,}")


class _Refusal(ImpactPluginError):  # noqa: N818 - an answer, not a fault
    """The answer to a request that is not taken."""

    def __init__(self, status: int, reason: str, detail: str, seconds: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.reason, self.detail, self.seconds = status, reason, detail, seconds


class BodyBudget:
    """Bytes of the bodies that are worked on."""

    def __init__(self) -> None:
        self.taken = 0


class BodyReservation:
    """What one body takes of the room."""

    def __init__(self, room: BodyBudget) -> None:
        self._room = room
        self._size = 0

    def hold(self, size: int) -> None:
        """Take room for a body that has so many bytes by now; raises 429 where there is none."""
        more = size - self._size
        if more <= 0:
            return
        if self._room.taken + more > IN_HAND:
            raise _Refusal(429, "busy", "too many large bodies are worked on already", 1)
        self._room.taken += more
        self._size = size

    def leave(self) -> None:
        """Give it back."""
        self._room.taken -= self._size
        self._size = 0


class ItemReport(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One item that was not simply stored."""

    index: int
    message_id: str | None
    status: Status
    error: str = ""


class SingleReply(msgspec.Struct, frozen=True):
    """The one event of the request is durable."""

    success: bool


class IngestReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The request is done with, and must not come again. ``more`` counts the results that are left out."""

    success: bool
    accepted: int
    rejected: int
    duplicates: int
    filtered: int
    results: list[ItemReport]
    more: int = 0


class IngestError(msgspec.Struct, frozen=True):
    """Nothing of the request was taken: the reason as one word, and what there is to do about it."""

    success: bool
    error: str
    detail: str


STORED: Final = msgspec.json.encode(SingleReply(success=True))


class _Kind(msgspec.Struct, frozen=True, rename="camel"):
    type: Any = None
    user_id: Any = None
    anonymous_id: Any = None


_kinds: Final = msgspec.json.Decoder(_Kind)


class _Taking:
    """A request that is worked on; when its sender stops waiting for the answer, the work goes on without anybody."""

    def __init__(self) -> None:
        self.ended = Event()
        self.answer: web.Response | Exception | None = None

    async def run(self, work: Callable[[], Awaitable[web.Response]]) -> None:
        try:
            self.answer = await work()
        except Exception as error:  # noqa: BLE001 - the border of one request, raised where somebody still waits for it
            self.answer = error
        finally:
            self.ended.set()


class IngestApp:
    """Answers on the ingest port."""

    def __init__(
        self,
        routing: Callable[[], Routing],
        take: Take,
        forget: Forget,
        readiness: Readiness,
        shutdown: Shutdown,
        telemetry: Telemetry,
        tasks: TaskGroup,
        clock: Callable[[], float] = time,
    ) -> None:
        self._routing = routing
        self._take = take
        self._forget = forget
        self._readiness = readiness
        self._shutdown = shutdown
        self._tasks = tasks
        self._telemetry = telemetry
        self._clock = clock
        self._room = BodyBudget()

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application()
        app.router.add_route("*", r"/{tail:(?:.|\n)*}", self.handle, expect_handler=_continue)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        started = perf_counter()
        path = _SLASHES.sub("/", request.path).rstrip("/") or "/"
        if path.lower() == "/health" and request.method in ("GET", "HEAD"):
            return web.Response(body=b'{"service":"UP"}', content_type=JSON)
        surface: Surface = "webhook" if path.lower().startswith("/webhook") else "segment_api"
        response = await self._guarded(request, path, surface)
        self._telemetry.emit(IngestAnswered(surface, response.status, perf_counter() - started))
        return response

    async def _guarded(self, request: web.Request, path: str, surface: Surface) -> web.Response:
        """Every fault as an answer of the contract."""
        try:
            answer = self._answer_webhook if surface == "webhook" else self._answer_segment
            return await answer(request, path)
        except _Refusal as refusal:
            return self._refuse(surface, refusal)
        except web.HTTPRequestEntityTooLarge as error:
            return self._refuse(surface, _Refusal(413, "body_too_large", error.text or "the body is too large"))
        except (EnvelopeError, web.RequestPayloadError, HttpProcessingError) as error:
            return self._refuse(surface, _Refusal(400, "undecodable_body", str(error)))
        except SpoolFullError as error:
            return self._refuse(surface, _Refusal(429, "spool_full", str(error), error.seconds))
        except StateUnavailableError as error:
            return self._refuse(surface, _Refusal(503, "state_unavailable", str(error), 5))
        except Exception as error:  # noqa: BLE001 - the border of one request: the sender must get an answer it repeats on
            self._telemetry.emit(RequestFault(surface, type(error).__name__, error))
            return _error(_Refusal(500, "internal_error", "a defect of impact-plugin; see its log"))

    def _refuse(self, surface: Surface, refusal: _Refusal) -> web.Response:
        self._telemetry.emit(RequestRefused(surface, refusal.status, refusal.reason, refusal.detail))
        return _error(refusal)

    async def _answer_segment(self, request: web.Request, path: str) -> web.Response:
        call = segment_api.call_of(path.lower())
        if call is None or request.method != "POST":
            raise _Refusal(404, "unknown_path", "send POST to /v1/batch, /v1/track and the like, or /webhook/SOURCE")
        routing = self._routing()
        key = segment_api.presented_key(request.headers)
        source = None if key is None else routing.source_of_key(key)
        if key is not None and source is None:
            raise _unauthorized()
        known = [source] if source else list(routing.sources.values())
        limit = max((one.max_batch_mb for one in known), default=1) * 1024 * 1024
        async with self._body(request, limit) as body:
            source = source or routing.source_of_key(segment_api.body_key(body.text) or "")
            if source is None:
                raise _unauthorized()
            event_limit = source.max_event_kb * 1024
            if call != segment_api.BATCH and len(body.text) > event_limit:
                raise _Refusal(413, "body_too_large", f"an event may have {event_limit:,} bytes (max_event_kb)")
            items = segment_api.read_items(body.text, call, event_limit)
            return await self._in_time(source, items, len(body.text), single=call != segment_api.BATCH)

    async def _answer_webhook(self, request: web.Request, path: str) -> web.Response:
        name, _, token = path[len("/webhook") :].strip("/").partition("/")
        source = self._routing().sources.get(name.lower())
        if source is None or request.method not in WEBHOOK_METHODS:
            raise _Refusal(404, "unknown_path", "send POST to /webhook/SOURCE, a source of the configuration")
        _authenticate(source, request, token or request.query.get("token", ""))
        async with self._body(request, source.max_webhook_mb * 1024 * 1024) as body:
            if source.signature is not None:
                _check_signature(source, request.headers, body.raw, self._clock())
            items = webhook.read_items(body.text, source)
            single = len(items) == 1 and not body.text.lstrip().startswith(b"[")
            return await self._in_time(source, items, len(body.text), single=single)

    @asynccontextmanager
    async def _body(self, request: web.Request, limit: int) -> AsyncIterator[RequestBody]:
        """The body while it is worked on, when there is room for it."""
        if self._readiness.draining:
            raise _Refusal(503, "stopping", "the service is stopping", 1)
        if self._readiness.over_memory:
            raise _Refusal(503, "memory", "the process is above server.max_memory_mb", 5)
        place = BodyReservation(self._room)
        try:
            # What is announced is kept free for it; what is not counts as it comes.
            place.hold(min(limit, request.content_length or 0))
            yield await self._read(request, limit, place)
        finally:
            place.leave()

    async def _read(self, request: web.Request, limit: int, place: BodyReservation) -> RequestBody:
        """The body, which nobody waits for any longer when the service stops."""
        if request.content.is_eof():
            return await read_bounded(request, limit, place.hold)
        with self._shutdown.cancels(BODY_SECONDS):
            return await read_bounded(request, limit, place.hold)
        raise _Refusal(503, "too_slow", f"the body was not there in time ({BODY_SECONDS:g} s, or the stop)", 1)

    async def _in_time(
        self, source: Source, items: Sequence[Item | Unusable], size: int, *, single: bool
    ) -> web.Response:
        """Take the items; after the deadline the sender is to come again, and what is stored then is a duplicate."""
        taking = _Taking()
        self._tasks.start_soon(taking.run, partial(self._work, source, items, single=single))
        seconds = ANSWER_SECONDS if size < LARGE else LARGE_ANSWER_SECONDS
        with move_on_after(seconds):
            await taking.ended.wait()
        if taking.answer is None:
            raise _Refusal(503, "too_slow", f"not stored within {seconds:g} s", 1)
        if isinstance(taking.answer, Exception):
            raise taking.answer
        return taking.answer

    async def _work(self, source: Source, items: Sequence[Item | Unusable], *, single: bool) -> web.Response:
        deletions = {place: who for place, item in enumerate(items) if (who := _deletion_of(item)) is not None}
        for users, anonymous in deletions.values():
            await self._forget(users, anonymous)
        rest = [item for place, item in enumerate(items) if place not in deletions]
        taken = iter(await self._take(source, rest) if rest else ())
        results = [ItemResult(None, "stored") if place in deletions else next(taken) for place in range(len(items))]
        if single and source.strict and results[0].status == "rejected":
            raise _Refusal(400, results[0].reason, results[0].detail)
        return _answer(results, single=single)


async def _continue(request: web.Request) -> None:
    """Ask for the body of who waits to be asked, and pass over other expectations: their answer, 417, is not ours."""
    if request.version >= (1, 1) and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The answer itself has not begun.
        request.writer.output_size = 0


def _authenticate(source: Source, request: web.Request, token: str) -> None:
    scheme, _, value = request.headers.get("Authorization", "").strip().partition(" ")
    basic = segment_api.basic_pair(value) if scheme.lower() == "basic" else ("", "")
    bearer = value.strip() if scheme.lower() == "bearer" else ""
    keys = webhook.presented_keys(source, request.headers, token, basic, bearer)
    if source.authentication != "none" and not any([source.has_key(key) for key in keys]):  # noqa: C419 - all are compared
        raise _unauthorized()


def _check_signature(source: Source, headers: Mapping[str, str], body: bytes, now: float) -> None:
    if source.signature is None:
        return
    try:
        verify(source.signature, headers, body, now)
    except SignatureError as error:
        raise _Refusal(401, "wrong_signature", str(error)) from error


def _unauthorized() -> _Refusal:
    return _Refusal(
        401, "unknown_key", "no source has this key; compare it with sources.NAME.keys of the configuration"
    )


def _deletion_of(item: Item | Unusable) -> tuple[list[str], list[str]] | None:
    """Whose deletion a message asks for. https://segment.com/docs/connections/destinations/catalog/webhooks/"""
    if isinstance(item, Unusable) or item.type is not None or b"delete" not in bytes(item.payload).lower():
        return None
    try:
        kind = _kinds.decode(item.payload)
    except UNREADABLE:
        return None
    if not isinstance(kind.type, str) or kind.type.strip().lower() != "delete":
        return None
    user, anonymous = as_text(kind.user_id), as_text(kind.anonymous_id)
    return ([user] if user else [], [anonymous] if anonymous else [])


def _answer(results: Sequence[ItemResult], *, single: bool) -> web.Response:
    if single and results[0].status == "stored":
        return web.Response(body=STORED, content_type=JSON)
    counts = dict.fromkeys(("stored", "duplicate", "filtered", "rejected"), 0)
    told: list[ItemReport] = []
    for index, result in enumerate(results):
        counts[result.status] += 1
        if result.status != "stored" and len(told) < MOST_RESULTS:
            told.append(ItemReport(index, result.message_id, result.status, _text(result)))
    reply = IngestReply(
        success=True,
        accepted=counts["stored"],
        rejected=counts["rejected"],
        duplicates=counts["duplicate"],
        filtered=counts["filtered"],
        results=told,
        more=len(results) - counts["stored"] - len(told),
    )
    return web.Response(body=msgspec.json.encode(reply), content_type=JSON)


def _text(result: ItemResult) -> str:
    return redact_emails(f"{result.reason}: {result.detail}" if result.detail else result.reason)[:DETAIL]


def _error(refusal: _Refusal) -> web.Response:
    body = IngestError(success=False, error=refusal.reason, detail=redact_emails(refusal.detail)[:DETAIL])
    headers = {} if refusal.seconds is None else {"Retry-After": str(refusal.seconds)}
    return web.Response(body=msgspec.json.encode(body), status=refusal.status, headers=headers, content_type=JSON)
