"""What probes and balancers ask, on the router's and on the operator's port."""

from aiohttp import web

from impact_plugin import __version__
from impact_plugin.http.readiness import Readiness
from impact_plugin.http.replies import HealthReply, ReadyReply, VersionReply, json_reply


class StatusHandlers:
    """Health, readiness and version; the applications of both ports inherit them."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    async def health(self, _request: web.Request) -> web.Response:
        """Alive: the process answers. The body is the stock transformer's."""
        return json_reply(HealthReply("UP", __version__))

    async def ready(self, _request: web.Request) -> web.Response:
        """200 when traffic is welcome, else 503 with the reasons."""
        problems = self._readiness.problems()
        body = ReadyReply(not problems, problems, self._readiness.troubles())
        return json_reply(body, status=503 if problems else 200)

    async def version(self, _request: web.Request) -> web.Response:
        """The package's version."""
        return json_reply(VersionReply("impact-plugin", __version__))
