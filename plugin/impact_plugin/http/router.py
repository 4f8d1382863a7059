"""The router's port: dispatches requests to their handlers or the upstream, and refuses those it cannot serve.

A wrong response here is worse than none: a 4xx aborts a batch for good, and a 404 aborts those of other destinations
too. Every failure of ours is therefore a 503 that makes the router retry.
https://github.com/rudderlabs/rudder-server/blob/master/processor/internal/transformer/destination_transformer/destination_transformer.go
"""

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final, TypeAlias

import msgspec
from aiohttp import web

from impact_plugin.config.settings import Settings
from impact_plugin.errors import EnvelopeError, StateUnavailableError
from impact_plugin.http.bodies import read_body
from impact_plugin.http.error_mapping import DEFECT, refusal_of
from impact_plugin.http.features import Features
from impact_plugin.http.gateway import NO_UPSTREAM, Upstream
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

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
JobsHandler: TypeAlias = Callable[[bytes, TransformContext], Awaitable[bytes]]

OTHER: Final = "other"
PASSED_THROUGH: Final = web.RequestKey("passed_through", bool)
"""Set on a request that goes to the stock transformer."""

OWN_REASONS: Final = frozenset({RefusalReason.MEMORY, RefusalReason.STATE_UNAVAILABLE})
"""Reasons to refuse jobs of this destination; refused jobs of others count in the metrics of the pass-through."""

TOO_LARGE: Final = "raise server.max_body_mb or let the router send less at once"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RouterApp(StatusHandlers):
    """Request handlers of the router's port; requests without a route go to the upstream."""

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
        """Return the aiohttp application."""
        app = web.Application(client_max_size=self._max_body)
        app.router.add_route("*", r"/{tail:(?:.|\n)*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Dispatch a request to its handler, and emit telemetry about it."""
        matched = self._routes.find(request.method, normal_path(request.path))
        handler: Handler = self.pass_on if matched is None else getattr(self, matched.route.handler)
        name = OTHER if matched is None else matched.path
        began, status = perf_counter(), 0
        self._telemetry.emit(RequestArrived())
        try:
            response = await self._guarded(request, handler, name)
            status = response.status
        finally:
            # Clients may send any word as the method: bound the metric's labels.
            method = request.method if request.method in METHODS else OTHER
            own = request.method == "POST" and name != OTHER and not request.get(PASSED_THROUGH, False)
            self._telemetry.emit(RequestServed(method, name, status, perf_counter() - began, own))
        return response

    async def features(self, _request: web.Request) -> web.Response:
        """Return the capabilities of the transformer."""
        return web.Response(body=await self._features.body(), content_type=JSON)

    async def transform_for_processor(self, request: web.Request) -> web.Response:
        """Transform a processor's batch; refuses it before reading its body when it could not be served."""
        self._readiness.require_running()
        self._readiness.require_memory()
        compacted = COMPACTED in request.headers.get("X-Content-Format", "").lower()
        body = await read_body(request, self._max_body)
        return _versioned(await rudder_processor.handle(body.text, self._context, compacted=compacted))

    async def transform_for_router(self, request: web.Request) -> web.StreamResponse:
        """Transform a router worker's jobs."""
        return await self._transform_jobs(request, rudder_router.handle, batch=False)

    async def transform_for_batch(self, request: web.Request) -> web.StreamResponse:
        """Transform jobs that the router wants to send in batches."""
        return await self._transform_jobs(request, rudder_router.handle_batch, batch=True)

    async def delete_users(self, request: web.Request) -> web.StreamResponse:
        """Delete users, or pass the request on if it is for another destination type."""
        body = await read_body(request, self._max_body)
        if rudder_regulation.destination_type(body.text) not in self._types:
            return await self.pass_on(request, body.raw)
        status, reply = await rudder_regulation.handle(body.text, self._context.destinations, self._forget)
        return _versioned(reply, status)

    async def deliver_v0(self, request: web.Request) -> web.Response:
        """Deliver a request to impact.com; one status for all its jobs."""
        return await self._deliver(request, "v0")

    async def deliver_v1(self, request: web.Request) -> web.Response:
        """Deliver a request to impact.com; one status for each of its jobs."""
        return await self._deliver(request, "v1")

    async def pass_on(self, request: web.Request, body: bytes | None = None) -> web.StreamResponse:
        """Forward the request to the upstream; ``body`` is the body if it was read already."""
        request[PASSED_THROUGH] = self._upstream.is_configured
        return await self._upstream.forward(request, body)

    async def _guarded(self, request: web.Request, handler: Handler, route: str) -> web.StreamResponse:
        """Run the handler; every exception becomes a response that makes the router keep its events."""
        try:
            return await handler(request)
        except Exception as error:  # noqa: BLE001 - the boundary of one request: the router must get a retryable response
            refused = refusal_of(error, too_large=TOO_LARGE, unreadable=RefusalReason.UNREADABLE_BODY)
            if refused is not None:
                return self._refuse(route, refused.reason, refused.detail)
            self._telemetry.emit(RequestFault(route, type(error).__name__, error))
            return _retry_response(RefusalReason.INTERNAL_ERROR, DEFECT)

    def _refuse(self, route: str, reason: RefusalReason, detail: str) -> web.Response:
        self._telemetry.emit(RequestRefused(route, 503, reason, detail))
        return _retry_response(reason, detail)

    async def _transform_jobs(self, request: web.Request, handle: JobsHandler, *, batch: bool) -> web.StreamResponse:
        """Handle jobs of this destination and pass on others; the router retries jobs for which neither is possible."""
        body = await read_body(request, self._max_body)
        try:
            if not self._is_own(body.text):
                return await self.pass_on(request, body.raw)
            self._readiness.require_memory()
            return _versioned(await handle(body.text, self._context))
        except StateUnavailableError as error:
            refused = RefusedError(RefusalReason.STATE_UNAVAILABLE, str(error))
        except RefusedError as error:
            refused = error
        if refused.reason in OWN_REASONS:
            route = normal_path(request.path).lower()
            self._telemetry.emit(RequestRefused(route, 200, refused.reason, refused.detail))
        return _versioned(rudder_router.unavailable_reply(body.text, _job_error(refused), batch=batch))

    def _is_own(self, body: bytes) -> bool:
        """Whether the jobs are for this destination; an unreadable body goes to the upstream if there is one."""
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

        status, reply = await self._proxy.handle(body.text, timeout, version=version, is_abandoned=is_abandoned)
        return _versioned(reply, status)


def _job_error(refused: RefusedError) -> str:
    """Return the error text for each job."""
    if refused.reason is RefusalReason.NOT_OURS:
        return NO_UPSTREAM
    if refused.reason is RefusalReason.UPSTREAM_UNREACHABLE:
        return f"the upstream transformer is unreachable: {refused.detail}"
    return f"{refused.reason}: {refused.detail}"


def _versioned(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, headers=API_VERSION, content_type=JSON)


def _retry_response(reason: RefusalReason, detail: str) -> web.Response:
    """Return the response on which rudder-server's processor backs off and retries the batch without limit."""
    return web.Response(
        status=503,
        headers={"X-Rudder-Should-Retry": "true", "X-Rudder-Error-Reason": reason},
        body=msgspec.json.encode(ErrorReply(f"{reason}: {detail}")),
        content_type=JSON,
    )
