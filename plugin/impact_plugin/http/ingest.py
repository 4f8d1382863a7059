"""The senders' port: the Segment HTTP API and webhooks.

Only a 200 means that the events are durable; see :mod:`impact_plugin.http.ingest_responses`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter, time
from typing import Final, Literal, TypeAlias

from aiohttp import web
from anyio import Event, move_on_after
from anyio.abc import TaskGroup

from impact_plugin.config.sources import Routing, Source
from impact_plugin.http.bodies import RequestBody, read_bounded
from impact_plugin.http.body_budget import BodyBudget, BodyReservation
from impact_plugin.http.error_mapping import DEFECT, refusal_of
from impact_plugin.http.ingest_keys import authenticate, check_signature, source_of_body, source_of_header
from impact_plugin.http.ingest_responses import STATUSES, RejectedEventError, accepted_response, error_response
from impact_plugin.http.readiness import Readiness
from impact_plugin.http.replies import HealthReply, json_response
from impact_plugin.http.routes import ROUTES, MatchedRoute, RouteTable, normal_path
from impact_plugin.ingest.deletion import deletion_of
from impact_plugin.ingest.intake import Item, ItemResult, Unusable
from impact_plugin.process.shutdown import Shutdown
from impact_plugin.protocols import segment_api, webhook
from impact_plugin.protocols.refusals import RefusalReason, RefusedError
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.faults import RequestFault
from impact_plugin.telemetry.events.http import IngestAnswered, RequestRefused
from impact_plugin.units import MIB

Surface: TypeAlias = Literal["segment_api", "webhook"]
Take: TypeAlias = Callable[[Source, Sequence[Item | Unusable]], Awaitable[list[ItemResult]]]
Forget: TypeAlias = Callable[[Sequence[str], Sequence[str]], Awaitable[object]]
Handler: TypeAlias = Callable[[web.Request, MatchedRoute], Awaitable[web.Response]]

RESPONSE_SECONDS: Final = 1.5
LARGE_RESPONSE_SECONDS: Final = 4.0
LARGE_BYTES: Final = MIB
"""Jitsu's timeout is two seconds for a single event, and five for a batch, which is large."""

BODY_SECONDS: Final = 30.0
"""How long a sender may take to send a body, which occupies a share of the body budget."""

KIB: Final = 1024

UNKNOWN_PATHS: Final[dict[Surface, str]] = {
    "segment_api": "send POST to /v1/batch, /v1/track and the like, or /webhook/SOURCE",
    "webhook": "send POST to /webhook/SOURCE, a source of the configuration",
}


class IngestApp:
    """Request handlers of the senders' port."""

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
        """Return the aiohttp application."""
        app = web.Application()
        app.router.add_route("*", r"/{tail:(?:.|\n)*}", self.handle, expect_handler=_continue)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Dispatch a request to its handler, and emit telemetry about it."""
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
        """Return 200: the process is alive."""
        return json_response(HealthReply("UP"))

    async def take_call(self, request: web.Request, matched: MatchedRoute) -> web.Response:
        """Store a call of the Segment HTTP API, or a batch of calls."""
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
            return await self._store_in_time(source, items, len(body.text), single=single)

    async def take_webhook(self, request: web.Request, matched: MatchedRoute) -> web.Response:
        """Store the events of a webhook."""
        source = self._routing().sources.get(matched.parameters["source"].lower())
        if source is None:
            raise RefusedError(RefusalReason.UNKNOWN_PATH, UNKNOWN_PATHS["webhook"])
        authenticate(source, request, matched.parameters.get("token") or request.query.get("token", ""))
        async with self._body(request, source.max_webhook_mb * MIB) as body:
            check_signature(source, request.headers, body.raw, self._clock())
            items = webhook.read_items(body.text, source)
            single = len(items) == 1 and not body.text.lstrip().startswith(b"[")
            return await self._store_in_time(source, items, len(body.text), single=single)

    async def _guarded(self, request: web.Request, matched: MatchedRoute | None, surface: Surface) -> web.Response:
        """Run the handler; every exception becomes a response that senders understand."""
        try:
            return await self._dispatch(request, matched, surface)
        except RejectedEventError as error:
            self._telemetry.emit(RequestRefused(surface, 400, error.reason, error.detail))
            return error_response(400, error.reason, error.detail)
        except Exception as error:  # noqa: BLE001 - the boundary of one request: the sender must get a retryable response
            refused = refusal_of(error, unreadable=RefusalReason.UNDECODABLE_BODY)
            if refused is not None:
                return self._refuse(surface, refused)
            self._telemetry.emit(RequestFault(surface, type(error).__name__, error))
            reason = RefusalReason.INTERNAL_ERROR
            return error_response(STATUSES[reason], reason, DEFECT)

    async def _dispatch(self, request: web.Request, matched: MatchedRoute | None, surface: Surface) -> web.Response:
        if matched is None:
            raise RefusedError(RefusalReason.UNKNOWN_PATH, UNKNOWN_PATHS[surface])
        handler: Handler = getattr(self, matched.route.handler)
        return await handler(request, matched)

    def _refuse(self, surface: Surface, refused: RefusedError) -> web.Response:
        status = STATUSES[refused.reason]
        self._telemetry.emit(RequestRefused(surface, status, refused.reason, refused.detail))
        return error_response(status, refused.reason, refused.detail, refused.retry_seconds)

    @asynccontextmanager
    async def _body(self, request: web.Request, limit: int) -> AsyncIterator[RequestBody]:
        """Yield the body, within the body budget."""
        self._readiness.require_running()
        self._readiness.require_memory()
        # Reserve the announced length; a body without one grows its reservation while it arrives.
        with self._budget.reserve(min(limit, request.content_length or 0)) as reservation:
            yield await self._read(request, limit, reservation)

    async def _read(self, request: web.Request, limit: int, reservation: BodyReservation) -> RequestBody:
        """Read the body; stops waiting for it when the service shuts down."""
        if request.content.is_eof():
            return await read_bounded(request, limit, reservation.grow)
        with self._shutdown.cancels(BODY_SECONDS) as scope:
            body = await read_bounded(request, limit, reservation.grow)
        if scope.cancelled_caught:
            # Otherwise aiohttp would go on reading after the response, and hold up the shutdown.
            request.content.feed_eof()
            detail = f"the body did not arrive in time ({BODY_SECONDS:g} s, or until the shutdown)"
            raise RefusedError(RefusalReason.TOO_SLOW, detail, 1)
        return body

    async def _store_in_time(
        self, source: Source, items: Sequence[Item | Unusable], size: int, *, single: bool
    ) -> web.Response:
        """Store the items; past the deadline the sender must retry, and events stored by then are duplicates."""
        storing = _Storing()
        self._tasks.start_soon(storing.run, partial(self._store, source, items, single=single))
        seconds = RESPONSE_SECONDS if size < LARGE_BYTES else LARGE_RESPONSE_SECONDS
        with move_on_after(seconds):
            await storing.ended.wait()
        if storing.result is None:
            raise RefusedError(RefusalReason.TOO_SLOW, f"not stored within {seconds:g} s", 1)
        if isinstance(storing.result, Exception):
            raise storing.result
        return storing.result

    async def _store(self, source: Source, items: Sequence[Item | Unusable], *, single: bool) -> web.Response:
        deletions = {place: who for place, item in enumerate(items) if (who := deletion_of(item)) is not None}
        for users, anonymous in deletions.values():
            await self._forget(users, anonymous)
        rest = [item for place, item in enumerate(items) if place not in deletions]
        taken = iter(await self._take(source, rest) if rest else ())
        results = [ItemResult(None, "stored") if place in deletions else next(taken) for place in range(len(items))]
        if single and source.strict and results[0].status == "rejected":
            raise RejectedEventError(results[0].reason, results[0].detail)
        return accepted_response(results, single=single)


class _Storing:
    """The storing of one request's events, which goes on when its sender disconnects or the deadline passes."""

    def __init__(self) -> None:
        self.ended = Event()
        self.result: web.Response | Exception | None = None

    async def run(self, work: Callable[[], Awaitable[web.Response]]) -> None:
        try:
            self.result = await work()
        except Exception as error:  # noqa: BLE001 - the boundary of one request: raised again for a sender that still waits
            self.result = error
        finally:
            self.ended.set()


async def _continue(request: web.Request) -> None:
    """Send 100 Continue when the client expects it; ignores other expectations instead of refusing them with 417."""
    if request.version >= (1, 1) and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The response itself has not begun.
        request.writer.output_size = 0
