"""What operators and their machines ask: health, readiness, version, metrics, limits, deletion, and how to ask it."""

import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from aiohttp import web

from impact_plugin import __version__
from impact_plugin.delivery.limits.scheduler import LimitReport
from impact_plugin.errors import StateUnavailableError
from impact_plugin.ingest.deletion import MOST_IDS, ForgetReport, ForgetRequest
from impact_plugin.process.memory import MemoryWatch
from impact_plugin.process.shutdown import Shutdown
from impact_plugin.sessions.sessions import Health
from impact_plugin.telemetry import CONTENT_TYPE, Telemetry
from impact_transformers.events import UNREADABLE


class HealthReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The process answers. The body is the stock transformer's; senders are not told the version."""

    service: Literal["UP"]
    version: str = ""


class ReadyReply(msgspec.Struct, frozen=True):
    """Whether traffic is welcome, what speaks against it, and what does not and yet needs somebody to look."""

    ready: bool
    problems: list[str]
    troubles: list[str]


class VersionReply(msgspec.Struct, frozen=True):
    """What is installed."""

    name: str
    version: str


class LimitsReply(msgspec.Struct, frozen=True):
    """Every account that something was sent for lately, a line for each of its endpoints."""

    accounts: Sequence[LimitReport]


class ErrorReply(msgspec.Struct, frozen=True):
    """Why the request was not served."""

    error: str


class Readiness:
    """Whether the service should get traffic, and if not, why not.

    ``watches`` tell of troubles of parts that others can do without; "" for none.
    """

    def __init__(
        self,
        state_dir: Path,
        sessions: Health,
        shutdown: Shutdown,
        memory: MemoryWatch,
        watches: Sequence[Callable[[], str]],
    ) -> None:
        self._state_dir = state_dir
        self._sessions = sessions
        self._shutdown = shutdown
        self._memory = memory
        self._watches = watches

    @property
    def draining(self) -> bool:
        """Whether the service stops and takes nothing new."""
        return self._shutdown.begun

    @property
    def over_memory(self) -> bool:
        """Whether the process holds more memory than it may."""
        return self._memory.exceeded

    def problems(self) -> list[str]:
        """Everything that speaks against traffic now; empty when ready."""
        found = ["the service is stopping"] if self.draining else []
        if not os.access(self._state_dir, os.W_OK | os.X_OK):
            found.append(f"the state folder {self._state_dir} is not writable")
        if self._sessions.down_since is not None and not self._sessions.alone:
            found.append(f"the session state is out of reach: {self._sessions.cause}")
        return found

    def troubles(self) -> list[str]:
        """What does not speak against traffic and yet needs somebody to look."""
        found = [trouble for watch in (self._memory.trouble, *self._watches) if (trouble := watch())]
        if self._sessions.alone:
            found.append(f"clicks are decided without the session state: {self._sessions.cause}")
        return found


class Operations:
    """Handlers for both ports."""

    def __init__(
        self,
        readiness: Readiness,
        telemetry: Telemetry,
        limits: Callable[[], Sequence[LimitReport]],
        forget: Callable[[Sequence[str], Sequence[str], Collection[str]], Awaitable[ForgetReport]],
        record: Callable[[web.Request], Awaitable[web.StreamResponse]],
        describe: Callable[[], bytes],
    ) -> None:
        self._readiness = readiness
        self._telemetry = telemetry
        self._limits = limits
        self._forget = forget
        self._record = record
        self._describe = describe

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

    async def metrics(self, _request: web.Request) -> web.Response:
        """Prometheus' text format."""
        return web.Response(body=self._telemetry.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def openapi(self, _request: web.Request) -> web.Response:
        """All endpoints of all ports, as OpenAPI describes them."""
        return web.Response(body=self._describe(), content_type="application/json")

    async def debug_limits(self, _request: web.Request) -> web.Response:
        """Every account that something was sent for lately: its limits, what waits, and why."""
        return json_reply(LimitsReply(self._limits()))

    async def forget(self, request: web.Request) -> web.Response:
        """Delete what is kept of persons: ``{"users": [...], "anonymous": [...]}``; see :class:`ForgetRequest`."""
        try:
            who = msgspec.json.decode(await request.read(), type=ForgetRequest)
        except UNREADABLE as error:
            return json_reply(ErrorReply(f'send {{"users": [...], "anonymous": [...]}}: {error}'), status=400)
        except web.HTTPRequestEntityTooLarge as error:
            return json_reply(ErrorReply(f"send fewer ids at a time: {error.text}"), status=413)
        if len(who.users) + len(who.anonymous) > MOST_IDS:
            return json_reply(ErrorReply(f"at most {MOST_IDS} ids at a time"), status=400)
        try:
            return json_reply(await self._forget(who.users, who.anonymous, [one.name for one in who.programs]))
        except StateUnavailableError as error:
            return json_reply(ErrorReply(f"not all was deleted, ask again: {error}"), status=503)

    def operator_app(self) -> web.Application:
        """The application of the operator's port."""
        app = web.Application()
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/health", self.health)
        app.router.add_get("/ready", self.ready)
        app.router.add_get("/version", self.version)
        app.router.add_get("/debug/limits", self.debug_limits)
        app.router.add_post("/forget", self.forget)
        # A HEAD would keep a recording under way that nobody gets.
        app.router.add_get("/record", self._record, allow_head=False)
        app.router.add_get("/openapi.json", self.openapi)
        return app


def json_reply(value: object, status: int = 200) -> web.Response:
    """The value as JSON."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
