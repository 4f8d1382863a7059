"""The port for senders of events: the Segment HTTP API and webhooks.

200 says that the events are durable, and nothing else does; see :mod:`impact_plugin.http.ingest_answers`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter, time
from typing import Final, Literal, TypeAlias

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from anyio import Event, move_on_after
from anyio.abc import TaskGroup

from impact_plugin.config.sources import Routing, Source
from impact_plugin.errors import EnvelopeError, StateUnavailableError
from impact_plugin.http.bodies import RequestBody, read_bounded
from impact_plugin.http.body_budget import BodyBudget, BodyReservation
from impact_plugin.http.ingest_answers import STATUSES, RejectedEventError, error_answer, taken_answer
from impact_plugin.http.ingest_keys import authenticate, check_signature, source_of_body, source_of_header
from impact_plugin.http.readiness import Readiness
from impact_plugin.http.replies import HealthReply, json_reply
from impact_plugin.http.routes import ROUTES, MatchedRoute, RouteTable, normal_path
from impact_plugin.ingest.deletion import deletion_of
from impact_plugin.ingest.intake import Item, ItemResult, Unusable
from impact_plugin.process.shutdown import Shutdown
from impact_plugin.protocols import segment_api, webhook
from impact_plugin.protocols.refusals import RefusalReason, RefusedError
from impact_plugin.spool.base import SpoolFullError
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.faults import RequestFault
from impact_plugin.telemetry.events.http import IngestAnswered, RequestRefused
from impact_plugin.units import MIB

Surface: TypeAlias = Literal["segment_api", "webhook"]
Take: TypeAlias = Callable[[Source, Sequence[Item | Unusable]], Awaitable[list[ItemResult]]]
Forget: TypeAlias = Callable[[Sequence[str], Sequence[str]], Awaitable[object]]
Handler: TypeAlias = Callable[[web.Request, MatchedRoute], Awaitable[web.Response]]

ANSWER_SECONDS: Final = 1.5
LARGE_ANSWER_SECONDS: Final = 4.0
LARGE_BYTES: Final = MIB
"""Jitsu gives a single event two seconds and a batch, which is large, five."""

BODY_SECONDS: Final = 30.0
"""How long a sender may take to send a body: it holds room that others could have."""

KIB: Final = 1024

UNKNOWN_PATHS: Final[dict[Surface, str]] = {
    "segment_api": "send POST to /v1/batch, /v1/track and the like, or /webhook/SOURCE",
    "webhook": "send POST to /webhook/SOURCE, a source of the configuration",
}


class IngestApp:
    """Answers on the port for senders."""

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
        self._budget = BodyBudget()
        self._routes = RouteTable(ROUTES["ingest"], {})

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application()
        app.router.add_route("*", r"/{tail:(?:.|\n)*}", self.handle, expect_handler=_continue)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        started = perf_counter()
        path = normal_path(request.path)
        matched = self._routes.find(request.method, path)
        if matched is None:
            surface: Surface = "webhook" if path.lower().startswith("/webhook") else "segment_api"
        elif matched.route.operation.secured:
            surface = matched.route.operation.secured
        else:
            return await self.health(request)
        response = await self._guarded(request, matched, surface)
        self._telemetry.emit(IngestAnswered(surface, response.status, perf_counter() - started))
        return response

    async def health(self, _request: web.Request) -> web.Response:
        """Alive: the process answers."""
        return json_reply(HealthReply("UP"))

    async def take_call(self, request: web.Request, matched: MatchedRoute) -> web.Response:
        """A call of the Segment HTTP API, or a batch of them."""
        call = segment_api.CALLS[matched.path.rpartition("/")[2]]
        single = call != segment_api.BATCH
        routing = self._routing()
        source = source_of_header(routing, request.headers)
        known = [source] if source else list(routing.sources.values())
        limit = max((one.max_batch_mb for one in known), default=1) * MIB
        async with self._body(request, limit) as body:
            source = source or source_of_body(routing, body.text)
            event_limit = source.max_event_kb * KIB
            if single and len(body.text) > event_limit:
                detail = f"an event may have {event_limit:,} bytes (max_event_kb)"
                raise RefusedError(RefusalReason.BODY_TOO_LARGE, detail)
            items = segment_api.read_items(body.text, call, event_limit)
            return await self._in_time(source, items, len(body.text), single=single)

    async def take_webhook(self, request: web.Request, matched: MatchedRoute) -> web.Response:
        """Events of a webhook."""
        source = self._routing().sources.get(matched.parameters["source"].lower())
        if source is None:
            raise RefusedError(RefusalReason.UNKNOWN_PATH, UNKNOWN_PATHS["webhook"])
        authenticate(source, request, matched.parameters.get("token") or request.query.get("token", ""))
        async with self._body(request, source.max_webhook_mb * MIB) as body:
            check_signature(source, request.headers, body.raw, self._clock())
            items = webhook.read_items(body.text, source)
            single = len(items) == 1 and not body.text.lstrip().startswith(b"[")
            return await self._in_time(source, items, len(body.text), single=single)

    async def _guarded(self, request: web.Request, matched: MatchedRoute | None, surface: Surface) -> web.Response:
        """Every fault as an answer of the contract."""
        try:
            return await self._answer(request, matched, surface)
        except RejectedEventError as error:
            self._telemetry.emit(RequestRefused(surface, 400, error.reason, error.detail))
            return error_answer(400, error.reason, error.detail)
        except RefusedError as error:
            return self._refuse(surface, error)
        except web.HTTPRequestEntityTooLarge as error:
            detail = error.text or "the body is too large"
            return self._refuse(surface, RefusedError(RefusalReason.BODY_TOO_LARGE, detail))
        except (EnvelopeError, web.RequestPayloadError, HttpProcessingError) as error:
            return self._refuse(surface, RefusedError(RefusalReason.UNDECODABLE_BODY, str(error)))
        except SpoolFullError as error:
            return self._refuse(surface, RefusedError(RefusalReason.SPOOL_FULL, str(error), error.seconds))
        except StateUnavailableError as error:
            return self._refuse(surface, RefusedError(RefusalReason.STATE_UNAVAILABLE, str(error), 5))
        except Exception as error:  # noqa: BLE001 - the border of one request: the sender must get an answer it repeats on
            self._telemetry.emit(RequestFault(surface, type(error).__name__, error))
            reason = RefusalReason.INTERNAL_ERROR
            return error_answer(STATUSES[reason], reason, "a defect of impact-plugin; see its log")

    async def _answer(self, request: web.Request, matched: MatchedRoute | None, surface: Surface) -> web.Response:
        if matched is None:
            raise RefusedError(RefusalReason.UNKNOWN_PATH, UNKNOWN_PATHS[surface])
        handler: Handler = getattr(self, matched.route.handler)
        return await handler(request, matched)

    def _refuse(self, surface: Surface, refused: RefusedError) -> web.Response:
        status = STATUSES[refused.reason]
        self._telemetry.emit(RequestRefused(surface, status, refused.reason, refused.detail))
        return error_answer(status, refused.reason, refused.detail, refused.retry_seconds)

    @asynccontextmanager
    async def _body(self, request: web.Request, limit: int) -> AsyncIterator[RequestBody]:
        """The body while it is worked on, when there is room for it."""
        self._readiness.require_running()
        self._readiness.require_memory()
        # What is announced is kept free for it; what is not counts as it comes.
        with self._budget.reserve(min(limit, request.content_length or 0)) as reservation:
            yield await self._read(request, limit, reservation)

    async def _read(self, request: web.Request, limit: int, reservation: BodyReservation) -> RequestBody:
        """The body, which nobody waits for any longer when the service stops."""
        if request.content.is_eof():
            return await read_bounded(request, limit, reservation.grow)
        with self._shutdown.cancels(BODY_SECONDS) as scope:
            body = await read_bounded(request, limit, reservation.grow)
        if scope.cancelled_caught:
            detail = f"the body was not there in time ({BODY_SECONDS:g} s, or the stop)"
            raise RefusedError(RefusalReason.TOO_SLOW, detail, 1)
        return body

    async def _in_time(
        self, source: Source, items: Sequence[Item | Unusable], size: int, *, single: bool
    ) -> web.Response:
        """Take the items; after the deadline the sender is to come again, and what is stored then is a duplicate."""
        taking = _Taking()
        self._tasks.start_soon(taking.run, partial(self._work, source, items, single=single))
        seconds = ANSWER_SECONDS if size < LARGE_BYTES else LARGE_ANSWER_SECONDS
        with move_on_after(seconds):
            await taking.ended.wait()
        if taking.answer is None:
            raise RefusedError(RefusalReason.TOO_SLOW, f"not stored within {seconds:g} s", 1)
        if isinstance(taking.answer, Exception):
            raise taking.answer
        return taking.answer

    async def _work(self, source: Source, items: Sequence[Item | Unusable], *, single: bool) -> web.Response:
        deletions = {place: who for place, item in enumerate(items) if (who := deletion_of(item)) is not None}
        for users, anonymous in deletions.values():
            await self._forget(users, anonymous)
        rest = [item for place, item in enumerate(items) if place not in deletions]
        taken = iter(await self._take(source, rest) if rest else ())
        results = [ItemResult(None, "stored") if place in deletions else next(taken) for place in range(len(items))]
        if single and source.strict and results[0].status == "rejected":
            raise RejectedEventError(results[0].reason, results[0].detail)
        return taken_answer(results, single=single)


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


async def _continue(request: web.Request) -> None:
    """Ask for the body of who waits to be asked, and pass over other expectations: their answer, 417, is not ours."""
    if request.version >= (1, 1) and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The answer itself has not begun.
        request.writer.output_size = 0
