"""The router's port: which request is whose, and how a request is answered that cannot be worked on.

A wrong answer here is worse than none: a 4xx aborts a batch for good, and a 404 the batches of other destinations too,
so every trouble of ours is a 503 that tells the router to come again.
https://github.com/rudderlabs/rudder-server/blob/master/processor/internal/transformer/destination_transformer/destination_transformer.go
"""

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final, TypeAlias

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import TransferEncodingError

from impact_plugin.config.settings import Settings
from impact_plugin.errors import EnvelopeError, StateUnavailableError
from impact_plugin.http.bodies import read_body
from impact_plugin.http.features import Features
from impact_plugin.http.gateway import NOT_OURS, Upstream
from impact_plugin.http.readiness import Readiness
from impact_plugin.http.replies import JSON, ErrorReply
from impact_plugin.http.routes import ROUTES, RouteTable, normal_path
from impact_plugin.http.status import StatusHandlers
from impact_plugin.protocols import rudder_processor, rudder_regulation, rudder_router
from impact_plugin.protocols.refusals import RefusalReason, RefusedError
from impact_plugin.protocols.rudder_envelope import API_VERSION, COMPACTED
from impact_plugin.protocols.rudder_proxy import Proxy
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.faults import RequestFault
from impact_plugin.telemetry.events.http import RequestArrived, RequestRefused, RequestServed
from impact_plugin.transformation.batch import TransformContext
from impact_plugin.units import MIB
from impact_transformers.events import UNREADABLE

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Answer: TypeAlias = Callable[[bytes, TransformContext], Awaitable[bytes]]

OTHER: Final = "other"
PASSED: Final = web.RequestKey("passed", bool)
"""Set on a request that goes to the stock transformer."""

OURS: Final = frozenset({RefusalReason.MEMORY, RefusalReason.STATE_UNAVAILABLE})
"""Reasons why jobs of ours are refused; other jobs are the upstream's, which has metrics of its own."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RouterApp(StatusHandlers):
    """Answers on the router's port; what has no route goes to the upstream."""

    def __init__(
        self,
        settings: Settings,
        context: TransformContext,
        proxy: Proxy,
        features: Features,
        upstream: Upstream,
        readiness: Readiness,
        forget: rudder_regulation.Forget,
    ) -> None:
        super().__init__(readiness)
        self._context = context
        self._forget = forget
        self._proxy = proxy
        self._features = features
        self._upstream = upstream
        self._telemetry: Telemetry = context.telemetry
        self._types = {name.lower() for name in settings.rudder.destination_types}
        self._max_body = settings.server.max_body_mb * MIB
        self._routes = RouteTable(ROUTES["router"], {"type": self._types})

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=self._max_body)
        app.router.add_route("*", r"/{tail:(?:.|\n)*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        matched = self._routes.find(request.method, normal_path(request.path))
        handler: Handler = self.pass_on if matched is None else getattr(self, matched.route.handler)
        name = OTHER if matched is None else matched.path
        began, status = perf_counter(), 0
        self._telemetry.emit(RequestArrived())
        try:
            response = await self._guarded(request, handler, name)
            status = response.status
        finally:
            # A method is a word that a client chooses.
            method = request.method if request.method in METHODS else OTHER
            ours = request.method == "POST" and name != OTHER and not request.get(PASSED, False)
            self._telemetry.emit(RequestServed(method, name, status, perf_counter() - began, ours))
        return response

    async def features(self, _request: web.Request) -> web.Response:
        """What the router may ask of us."""
        return web.Response(body=await self._features.reply(), content_type=JSON)

    async def transform_for_processor(self, request: web.Request) -> web.Response:
        """A processor's batch; refused before its body is read when it would not be worked on."""
        self._readiness.require_running()
        self._readiness.require_memory()
        compacted = COMPACTED in request.headers.get("X-Content-Format", "").lower()
        body = await read_body(request, self._max_body)
        return _versioned(await rudder_processor.answer(body.text, self._context, compacted=compacted))

    async def transform_for_router(self, request: web.Request) -> web.StreamResponse:
        """A router worker's jobs."""
        return await self._transform_jobs(request, rudder_router.answer, batch=False)

    async def transform_for_batch(self, request: web.Request) -> web.StreamResponse:
        """Jobs that the router would put together."""
        return await self._transform_jobs(request, rudder_router.answer_batch, batch=True)

    async def delete_users(self, request: web.Request) -> web.StreamResponse:
        """Persons to delete, at one destination type."""
        body = await read_body(request, self._max_body)
        if rudder_regulation.destination_type(body.text) not in self._types:
            return await self.pass_on(request, body.raw)
        status, reply = await rudder_regulation.answer(body.text, self._context.destinations, self._forget)
        return _versioned(reply, status)

    async def deliver_v0(self, request: web.Request) -> web.Response:
        """A request to deliver; one outcome for all its jobs."""
        return await self._deliver(request, "v0")

    async def deliver_v1(self, request: web.Request) -> web.Response:
        """A request to deliver; an outcome for each of its jobs."""
        return await self._deliver(request, "v1")

    async def pass_on(self, request: web.Request, body: bytes | None = None) -> web.StreamResponse:
        """What is not ours, to the upstream; ``body`` is what was read of it already."""
        request[PASSED] = self._upstream.is_configured
        return await self._upstream.forward(request, body)

    async def _guarded(self, request: web.Request, handler: Handler, route: str) -> web.StreamResponse:
        """Turn every fault into an answer that makes the router keep its events."""
        try:
            return await handler(request)
        except RefusedError as error:
            return self._refuse(route, error.reason, error.detail)
        except web.HTTPRequestEntityTooLarge:
            fix = "raise server.max_body_mb or let the router send less at once"
            return self._refuse(route, RefusalReason.BODY_TOO_LARGE, fix)
        except (EnvelopeError, *UNREADABLE) as error:
            return self._refuse(route, RefusalReason.UNDECODABLE_BODY, str(error))
        except (TransferEncodingError, web.RequestPayloadError) as error:
            return self._refuse(route, RefusalReason.UNREADABLE_BODY, type(error).__name__)
        except StateUnavailableError as error:
            return self._refuse(route, RefusalReason.STATE_UNAVAILABLE, str(error))
        except Exception as error:  # noqa: BLE001 - the border of one request: the router must get an answer it can live with
            self._telemetry.emit(RequestFault(route, type(error).__name__, error))
            return _come_again(RefusalReason.INTERNAL_ERROR, "a defect of impact-plugin; see its log")

    def _refuse(self, route: str, reason: RefusalReason, detail: str) -> web.Response:
        self._telemetry.emit(RequestRefused(route, 503, reason, detail))
        return _come_again(reason, detail)

    async def _transform_jobs(self, request: web.Request, answer: Answer, *, batch: bool) -> web.StreamResponse:
        """Jobs whose type stands in the body: ours are answered, others passed on; what cannot be is to come again."""
        body = await read_body(request, self._max_body)
        try:
            if not self._is_ours(body.text):
                return await self.pass_on(request, body.raw)
            self._readiness.require_memory()
            return _versioned(await answer(body.text, self._context))
        except StateUnavailableError as error:
            refused = RefusedError(RefusalReason.STATE_UNAVAILABLE, str(error))
        except RefusedError as error:
            refused = error
        if refused.reason in OURS:
            route = normal_path(request.path).lower()
            self._telemetry.emit(RequestRefused(route, 200, refused.reason, refused.detail))
        return _versioned(rudder_router.answer_unavailable(body.text, _job_error(refused), batch=batch))

    def _is_ours(self, body: bytes) -> bool:
        """Whether the jobs are for us; what nobody can read is the stock transformer's, where there is one."""
        try:
            return rudder_router.destination_type(body) in self._types
        except EnvelopeError:
            if not self._upstream.is_configured:
                raise
            return False

    async def _deliver(self, request: web.Request, version: str) -> web.Response:
        body = await read_body(request, self._max_body)
        timeout = request.headers.get("RdProxy-Timeout")

        def is_abandoned() -> bool:
            return request.transport is None or request.transport.is_closing()

        status, reply = await self._proxy.answer(body.text, timeout, version=version, is_abandoned=is_abandoned)
        return _versioned(reply, status)


def _job_error(refused: RefusedError) -> str:
    """What stands in the answer for each job."""
    if refused.reason is RefusalReason.NOT_OURS:
        return NOT_OURS
    if refused.reason is RefusalReason.UPSTREAM_UNREACHABLE:
        return f"the upstream transformer is unreachable: {refused.detail}"
    return f"{refused.reason}: {refused.detail}"


def _versioned(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, headers=API_VERSION, content_type=JSON)


def _come_again(reason: RefusalReason, detail: str) -> web.Response:
    """The answer on which rudder-server's processor waits and sends the batch again, however long it takes."""
    return web.Response(
        status=503,
        headers={"X-Rudder-Should-Retry": "true", "X-Rudder-Error-Reason": reason},
        body=msgspec.json.encode(ErrorReply(f"{reason}: {detail}")),
        content_type=JSON,
    )
