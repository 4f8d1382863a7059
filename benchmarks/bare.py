"""A server of aiohttp that does nothing but read a body and answer with as many bytes as the path says.

python -m benchmarks.bare PORT
"""

import asyncio
import sys
from typing import Final

from aiohttp import web

FILL: Final = b" " * (16 * 1024 * 1024)
API_VERSION: Final = {"apiVersion": "2"}


async def handle(request: web.Request) -> web.Response:
    """Answer ``POST /12345`` with 12345 bytes, and everything else with none."""
    await request.read()
    size = request.path[1:]
    return web.Response(
        body=FILL[: int(size) if size.isdigit() else 0], headers=API_VERSION, content_type="application/json"
    )


async def serve(port: int) -> None:
    """Listen as the service does, until the process is ended."""
    app = web.Application(client_max_size=200 * 1024 * 1024)
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=75.0, handler_cancellation=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
