"""A server whose answers a test makes."""

from collections import Counter
from collections.abc import Awaitable, Callable

from aiohttp import web


class Server:
    """A server whose answers a test makes."""

    def __init__(self) -> None:
        self.port = 0
        self.paths: Counter[str] = Counter()
        self.bodies: list[bytes] = []
        self.reply: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] = self._ordinary
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.1)

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the port."""
        await self._runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self.paths[request.path] += 1
        self.bodies.append(await request.read())
        return await self.reply(request)

    async def _ordinary(self, _request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"ok", headers={"apiVersion": "2"})
