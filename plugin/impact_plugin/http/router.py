"""The router's port: which request is whose, and how a request is answered that cannot be worked on.

A wrong answer here is worse than none: a 4xx aborts a batch for good, and a 404 the batches of other destinations too,
so every trouble of ours is a 503 that tells the router to come again.
https://github.com/rudderlabs/rudder-server/blob/master/processor/internal/transformer/destination_transformer/destination_transformer.go
"""

import re
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final, TypeAlias

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import TransferEncodingError

from impact_plugin.config.settings import Settings
from impact_plugin.errors import EnvelopeError, ImpactPluginError, StateUnavailableError
from impact_plugin.http.bodies import read_body
from impact_plugin.http.features import Features
from impact_plugin.http.gateway import NoUpstreamError, Upstream, UpstreamUnreachableError
from impact_plugin.http.operator import ErrorReply, Operations, Readiness
from impact_plugin.protocols import rudder_processor, rudder_regulation, rudder_router
from impact_plugin.protocols.rudder_envelope import API_VERSION, COMPACTED
from impact_plugin.protocols.rudder_proxy import Proxy
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.faults import RequestFault
from impact_plugin.telemetry.events.http import RequestArrived, RequestRefused, RequestServed
from impact_plugin.transformation.batch import TransformContext
from impact_transformers.events import UNREADABLE

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Answer: TypeAlias = Callable[[bytes, TransformContext], Awaitable[bytes]]

JSON: Final = "application/json"
OTHER: Final = "other"
PASSED: Final = web.RequestKey("passed", bool)
"""Set on a request that goes to the stock transformer."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OVER_MEMORY: Final = "the process is above server.max_memory_mb"
NOT_OURS: Final = "not ours, and no upstream transformer is configured (setting rudder.upstream)"
_SLASHES: Final = re.compile(r"/{2,}")


class OverMemoryError(ImpactPluginError):
    """The process holds more than it may and takes no events."""


class RouterApp:
    """Dispatches by method and path, whatever slashes and letter case the router's URL setting leads to."""

    def __init__(
        self,
        settings: Settings,
        context: TransformContext,
        proxy: Proxy,
        features: Features,
        upstream: Upstream,
        operations: Operations,
        readiness: Readiness,
        forget: rudder_regulation.Forget,
    ) -> None:
        self._context = context
        self._forget = forget
        self._proxy = proxy
        self._features = features
        self._upstream = upstream
        self._readiness = readiness
        self._telemetry: Telemetry = context.telemetry
        self._types = {name.lower() for name in settings.rudder.destination_types}
        self._max_body = settings.server.max_body_mb * 1024 * 1024
        self._routes = self._make_routes(operations)

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=self._max_body)
        app.router.add_route("*", r"/{tail:(?:.|\n)*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        path = _SLASHES.sub("/", request.path).rstrip("/") or "/"
        route = (request.method, path.lower())
        handler, name = self._routes.get(route), path.lower()
        if handler is None:
            handler, name = self._pass_on, OTHER
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

    def _make_routes(self, operations: Operations) -> dict[tuple[str, str], Handler]:
        routes: dict[tuple[str, str], Handler] = {
            ("GET", "/features"): self._serve_features,
            ("GET", "/health"): operations.health,
            ("GET", "/ready"): operations.ready,
            ("GET", "/version"): operations.version,
            ("POST", "/routertransform"): self._transform_for_router,
            ("POST", "/batch"): self._transform_for_batch,
            ("POST", "/deleteusers"): self._delete_users,
        }
        for name in self._types:
            routes["POST", f"/v0/destinations/{name}"] = self._transform_for_processor
            routes["POST", f"/v0/destinations/{name}/proxy"] = self._deliver_v0
            routes["POST", f"/v1/destinations/{name}/proxy"] = self._deliver_v1
        return routes

    async def _guarded(self, request: web.Request, handler: Handler, route: str) -> web.StreamResponse:
        """Turn every fault into an answer that makes the router keep its events."""
        try:
            return await handler(request)
        except NoUpstreamError:
            return self._refuse(OTHER, "not_ours", f"{request.method} is {NOT_OURS}")
        except web.HTTPRequestEntityTooLarge:
            return self._refuse(route, "body_too_large", "raise server.max_body_mb or let the router send less at once")
        except (EnvelopeError, *UNREADABLE) as error:
            return self._refuse(route, "undecodable_body", str(error))
        except (TransferEncodingError, web.RequestPayloadError) as error:
            return self._refuse(route, "unreadable_body", type(error).__name__)
        except UpstreamUnreachableError as error:
            return self._refuse(route, "upstream_unreachable", str(error))
        except StateUnavailableError as error:
            return self._refuse(route, "state_unavailable", str(error))
        except OverMemoryError as error:
            return self._refuse(route, "memory", str(error))
        except Exception as error:  # noqa: BLE001 - the border of one request: the router must get an answer it can live with
            self._telemetry.emit(RequestFault(route, type(error).__name__, error))
            return _come_again("internal_error", "a defect of impact-plugin; see its log")

    def _refuse(self, route: str, reason: str, detail: str) -> web.Response:
        self._telemetry.emit(RequestRefused(route, 503, reason, detail))
        return _come_again(reason, detail)

    async def _serve_features(self, _request: web.Request) -> web.Response:
        return web.Response(body=await self._features.reply(), content_type=JSON)

    async def _transform_for_processor(self, request: web.Request) -> web.Response:
        if self._readiness.draining:
            return self._refuse("processor", "stopping", "the service is stopping")
        if self._readiness.over_memory:
            raise OverMemoryError(OVER_MEMORY)
        compacted = COMPACTED in request.headers.get("X-Content-Format", "").lower()
        body = await read_body(request, self._max_body)
        reply = await rudder_processor.answer(body.text, self._context, compacted=compacted)
        return web.Response(body=reply, headers=API_VERSION, content_type=JSON)

    async def _transform_for_router(self, request: web.Request) -> web.StreamResponse:
        return await self._by_type(request, rudder_router.answer, batch=False)

    async def _transform_for_batch(self, request: web.Request) -> web.StreamResponse:
        return await self._by_type(request, rudder_router.answer_batch, batch=True)

    async def _by_type(self, request: web.Request, answer: Answer, *, batch: bool) -> web.StreamResponse:
        """Jobs whose type stands in the body: ours are answered, others passed on; what cannot be is to come again."""
        body = await read_body(request, self._max_body)
        route = "/batch" if batch else "/routertransform"
        try:
            if self._is_ours(body.text):
                return _transformed(await self._answer_ours(body.text, answer))
            return await self._pass_on(request, body.raw)
        except (OverMemoryError, StateUnavailableError) as error:
            name = "memory" if isinstance(error, OverMemoryError) else "state_unavailable"
            self._telemetry.emit(RequestRefused(route, 200, name, str(error)))
            reason = f"{name}: {error}"
        except NoUpstreamError:
            reason = NOT_OURS
        except UpstreamUnreachableError as error:
            reason = f"the upstream transformer is unreachable: {error}"
        return _transformed(rudder_router.answer_unavailable(body.text, reason, batch=batch))

    async def _answer_ours(self, body: bytes, answer: Answer) -> bytes:
        if self._readiness.over_memory:
            raise OverMemoryError(OVER_MEMORY)
        return await answer(body, self._context)

    def _is_ours(self, body: bytes) -> bool:
        """Whether the jobs are for us; what nobody can read is the stock transformer's, where there is one."""
        try:
            return rudder_router.destination_type(body) in self._types
        except EnvelopeError:
            if not self._upstream.is_configured:
                raise
            return False

    async def _delete_users(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, self._max_body)
        if rudder_regulation.destination_type(body.text) not in self._types:
            return await self._pass_on(request, body.raw)
        status, reply = await rudder_regulation.answer(body.text, self._context.destinations, self._forget)
        return web.Response(body=reply, status=status, headers=API_VERSION, content_type=JSON)

    async def _deliver_v0(self, request: web.Request) -> web.Response:
        return await self._deliver(request, "v0")

    async def _deliver_v1(self, request: web.Request) -> web.Response:
        return await self._deliver(request, "v1")

    async def _deliver(self, request: web.Request, version: str) -> web.Response:
        body = await read_body(request, self._max_body)
        timeout = request.headers.get("RdProxy-Timeout")

        def is_abandoned() -> bool:
            return request.transport is None or request.transport.is_closing()

        status, reply = await self._proxy.answer(body.text, timeout, version=version, is_abandoned=is_abandoned)
        return web.Response(body=reply, status=status, headers=API_VERSION, content_type=JSON)

    async def _pass_on(self, request: web.Request, body: bytes | None = None) -> web.StreamResponse:
        request[PASSED] = self._upstream.is_configured
        return await self._upstream.forward(request, body)


def _transformed(body: bytes) -> web.Response:
    return web.Response(body=body, headers=API_VERSION, content_type=JSON)


def _come_again(reason: str, detail: str) -> web.Response:
    """The answer on which rudder-server's processor waits and sends the batch again, however long it takes."""
    return web.Response(
        status=503,
        headers={"X-Rudder-Should-Retry": "true", "X-Rudder-Error-Reason": reason},
        body=msgspec.json.encode(ErrorReply(f"{reason}: {detail}")),
        content_type=JSON,
    )
