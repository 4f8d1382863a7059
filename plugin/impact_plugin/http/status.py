"""The endpoints for probes and load balancers, on the router's and the operator's port."""

from aiohttp import web

from impact_plugin import __version__
from impact_plugin.http.readiness import Readiness
from impact_plugin.http.replies import HealthReply, ReadyReply, VersionReply, json_response


class StatusHandlers:
    """Request handlers for health, readiness and version, inherited by the applications of both ports."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    async def health(self, _request: web.Request) -> web.Response:
        """Return 200: the process is alive. The body has the stock transformer's format."""
        return json_response(HealthReply("UP", __version__))

    async def ready(self, _request: web.Request) -> web.Response:
        """Return 200 when the service is ready for traffic, else 503 with the reasons."""
        problems = self._readiness.problems()
        body = ReadyReply(not problems, problems, self._readiness.troubles())
        return json_response(body, status=503 if problems else 200)

    async def version(self, _request: web.Request) -> web.Response:
        """Return the package's version."""
        return json_response(VersionReply("impact-plugin", __version__))
