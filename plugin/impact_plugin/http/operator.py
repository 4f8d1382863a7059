"""The operator's port: health, readiness, version, metrics, limits, deletion, recordings, and the OpenAPI document."""

from collections.abc import Awaitable, Callable, Collection, Sequence

import msgspec
from aiohttp import web

from impact_plugin.delivery.limits.scheduler import LimitReport
from impact_plugin.errors import StateUnavailableError
from impact_plugin.http.readiness import Readiness
from impact_plugin.http.replies import JSON, ErrorReply, LimitsReply, json_response
from impact_plugin.http.routes import ROUTES
from impact_plugin.http.status import StatusHandlers
from impact_plugin.ingest.deletion import MAX_IDS, ForgetReport, ForgetRequest
from impact_plugin.telemetry import CONTENT_TYPE, Telemetry
from impact_transformers.events import UNREADABLE


class OperatorApp(StatusHandlers):
    """Request handlers of the operator's port."""

    def __init__(
        self,
        readiness: Readiness,
        telemetry: Telemetry,
        limits: Callable[[], Sequence[LimitReport]],
        forget: Callable[[Sequence[str], Sequence[str], Collection[str]], Awaitable[ForgetReport]],
        record: Callable[[web.Request], Awaitable[web.StreamResponse]],
        describe: Callable[[], bytes],
    ) -> None:
        super().__init__(readiness)
        self._telemetry = telemetry
        self._limits = limits
        self._forget = forget
        self._record = record
        self._describe = describe

    def application(self) -> web.Application:
        """Return the aiohttp application. Unknown paths get a plain 404, since only operators call this port."""
        app = web.Application()
        for route in ROUTES["operator"]:
            handler = getattr(self, route.handler)
            if route.method == "GET":
                app.router.add_get(route.path, handler, allow_head=route.heads)
            else:
                app.router.add_route(route.method, route.path, handler)
        return app

    async def metrics(self, _request: web.Request) -> web.Response:
        """Return the metrics in Prometheus' text format."""
        return web.Response(body=self._telemetry.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def openapi(self, _request: web.Request) -> web.Response:
        """Return the OpenAPI document of all ports."""
        return web.Response(body=self._describe(), content_type=JSON)

    async def debug_limits(self, _request: web.Request) -> web.Response:
        """Return the limits of every recently used account: what waits, and why."""
        return json_response(LimitsReply(self._limits()))

    async def record(self, request: web.Request) -> web.StreamResponse:
        """Stream a recording, for as long as the connection lasts."""
        return await self._record(request)

    async def forget(self, request: web.Request) -> web.Response:
        """Delete the personal data of the users in the body, a :class:`ForgetRequest`."""
        try:
            who = msgspec.json.decode(await request.read(), type=ForgetRequest)
        except UNREADABLE as error:
            return json_response(ErrorReply(f'send {{"users": [...], "anonymous": [...]}}: {error}'), status=400)
        except web.HTTPRequestEntityTooLarge as error:
            return json_response(ErrorReply(f"send fewer ids at a time: {error.text}"), status=413)
        if len(who.users) + len(who.anonymous) > MAX_IDS:
            return json_response(ErrorReply(f"at most {MAX_IDS} ids at a time"), status=400)
        try:
            return json_response(await self._forget(who.users, who.anonymous, [one.name for one in who.programs]))
        except StateUnavailableError as error:
            return json_response(ErrorReply(f"not all was deleted, ask again: {error}"), status=503)
