"""A headless Chromium, asked over its DevTools protocol: pages measured and photographed in light and dark."""

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import aiohttp

Scheme: TypeAlias = Literal["light", "dark"]

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
OPTIONS: Final = (
    "--headless=new",
    "--no-sandbox",  # pages of our own only, and a container has no other way
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-port=0",
)
START_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 30.0
LARGEST_ANSWER: Final = 64 * 1024 * 1024
HEIGHT: Final = 900


class BrowserError(Exception):
    """The browser is not there or does not do what it is asked; the message is one line."""


class Tab:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0

    async def show(self, file: Path, scheme: Scheme, width: int, scale: float = 1.0) -> None:
        """Load a file as a reader with this colour scheme and so wide a window has it."""
        metrics = {"width": width, "height": HEIGHT, "deviceScaleFactor": scale, "mobile": False}
        await self._ask("Emulation.setDeviceMetricsOverride", **metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await self._ask("Emulation.setEmulatedMedia", features=[feature])
        found = await self._ask("Page.navigate", url=file.resolve().as_uri())
        if "errorText" in found:
            raise BrowserError(f"{file.name}: {found['errorText']}")
        await self.evaluate(
            "new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', done))"
        )

    async def evaluate(self, expression: str) -> Any:
        """What a line of JavaScript comes to in the page."""
        asked = await self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in asked:
            raise BrowserError(f"{expression}: {asked['exceptionDetails']['text']}")
        return asked["result"].get("value")

    async def picture(self, height: float | None = None) -> bytes:
        """The page from its top to its bottom, or to a height, as PNG."""
        size = (await self._ask("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        taken = await self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(taken["data"])

    async def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_str(json.dumps({"id": self._number, "method": method, "params": parameters}))
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                told = json.loads(await self._socket.receive_str())
                if told.get("id") == self._number:
                    break
        if "error" in told:
            raise BrowserError(f"{method}: {told['error']['message']}")
        result: dict[str, Any] = told["result"]
        return result


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Tab]:
    """Start Chromium with a profile that is thrown away, and lend its tab."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise BrowserError("there is no Chromium: install the package chromium (apt-get install chromium)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [program, *OPTIONS, f"--user-data-dir={folder}", "about:blank"]
        nothing = subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*command, stdout=nothing, stderr=nothing)
        try:
            port = await _port(Path(folder) / "DevToolsActivePort", process)
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(await _tab_address(session, port), max_msg_size=LARGEST_ANSWER) as socket,
            ):
                yield Tab(socket)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _port(file: Path, process: asyncio.subprocess.Process) -> int:
    """The port that Chromium chose, which it writes into its profile."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.returncode is None:
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
            return int(file.read_text(encoding="utf-8").splitlines()[0])
        await asyncio.sleep(0.05)
    raise BrowserError("Chromium did not start")


async def _tab_address(session: aiohttp.ClientSession, port: int) -> str:
    async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
        tabs = await response.json()
    return next(str(tab["webSocketDebuggerUrl"]) for tab in tabs if tab["type"] == "page")
