"""FakeImpact: both API hosts of impact.com on one local port, for tests, load runs and rehearsals.

impact.com offers no sandbox (https://integrations.impact.com/integration-guides/end-to-end-tests), so this server
checks requests against the published rules, answers in the published formats and remembers what it received:

- ``POST /PageLoad`` is the tracking host: https://integrations.impact.com/impact-brand/reference/create-a-pageload
- ``POST /Advertisers/{AccountSID}/Conversions`` is the API host:
  https://integrations.impact.com/impact-brand/reference/submit-a-conversion
- ``GET``/``DELETE /_calls`` show and forget the calls; ``GET``/``PUT /_script`` show and replace the scripted faults;
  ``GET``/``PUT /_capacity`` show and replace how many requests it accepts, and how fast.

The control paths need no password: keep the server on the loopback interface or inside a test network.
Bodies are limited to 1 MiB, aiohttp's default; a longer one gets a 413 and is not remembered.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import msgspec
from aiohttp import web

from impact_plugin.testing.capacity import Arrival, Capacity, CapacityTally, Sink
from impact_plugin.testing.duplicate_orders import DuplicateOrders
from impact_plugin.testing.impact_answers import PAGE_LOAD_PATH, ImpactAnswers, ReceivedRequest, acceptance, credentials
from impact_plugin.testing.impact_forms import parse_body
from impact_plugin.testing.impact_responses import FakeAnswer, failure, json_response, phrase, render
from impact_plugin.testing.impact_script import Rule, RunningScript, Script, ScriptError
from impact_plugin.testing.rate_limit_headers import Allowance, announce

NEVER: Final = 86_400.0
"""Seconds for which a request that gets no answer is kept open; its sender gives up long before."""


class Call(msgspec.Struct, frozen=True):
    """A remembered request.

    ``headers`` keep the sender's spelling, but ``Authorization`` only its scheme and user. ``status`` is the answer's
    HTTP status, 0 if the connection was dropped instead. ``received_at`` is in seconds since 1970. ``accepted``:
    impact.com would have accepted the conversion or page load; ``duplicate``: it had the same order already.
    """

    method: str
    path: str
    headers: dict[str, str]
    form: dict[str, str]
    status: int
    received_at: float
    accepted: bool = False
    duplicate: bool = False


class FakeImpact:
    """A running stand-in for impact.com: ``async with FakeImpact() as impact: ... impact.url``.

    ``port`` 0 takes a free one. ``dedupe_window``: seconds during which a second conversion of the same event type and
    order id counts as a duplicate (it gets the same answer as the first, as from impact.com); None counts none.
    ``auth_token``: the only password that is accepted; None accepts any. ``forbidden`` answers 403 to every
    authenticated conversion, as for a token without that scope. ``strict`` refuses two things that impact.com
    tolerates: credentials sent to the tracking host, and a page load's e-mail address in clear. ``maxlen``: how many
    calls (and order ids) are remembered; the oldest are forgotten first. ``clock`` returns seconds since 1970.
    ``capacity``: how many requests are accepted and how fast, by default all, at once; you may replace it at any time.
    """

    def __init__(  # noqa: PLR0913 - each is a property of the account or the server, given by name
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        dedupe_window: float | None = None,
        auth_token: str | None = None,
        forbidden: bool = False,
        strict: bool = True,
        maxlen: int = 100_000,
        clock: Callable[[], float] = time.time,
        capacity: Capacity | None = None,
    ) -> None:
        self._sink: Sink | None = None
        self.capacity = capacity
        self._host = host
        self._port = port
        self._clock = clock
        self._answers = ImpactAnswers(auth_token=auth_token, forbidden=forbidden, strict=strict)
        self._calls: deque[Call] = deque(maxlen=maxlen)
        self._orders = DuplicateOrders(dedupe_window, maxlen)
        self._duplicates = 0
        self._script = RunningScript(Script([]))
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        # The low-level server: with two endpoints, a router and its middlewares would only slow load tests down.
        # A sender that gives up frees what it held; its request is already remembered.
        server = web.Server(self._serve, access_log=None, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port, backlog=1024).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @property
    def url(self) -> str:
        """The base address, without a trailing slash; raises RuntimeError if the server is not running."""
        if self._runner is None:
            raise RuntimeError("FakeImpact is not running; use it as an async context manager")
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def capacity(self) -> Capacity | None:
        """How many requests are accepted and how fast; None for all, at once. A new one continues the counts."""
        return None if self._sink is None else self._sink.capacity

    @capacity.setter
    def capacity(self, capacity: Capacity | None) -> None:
        if capacity is None:
            self._sink = None
        elif self._sink is None:
            self._sink = Sink(capacity, random.Random(1))  # noqa: S311 - jitter, the same in every run
        else:
            self._sink.capacity = capacity

    @property
    def auth_token(self) -> str | None:
        """The only password that is accepted; None accepts any. You may change it at any time."""
        return self._answers.auth_token

    @auth_token.setter
    def auth_token(self, token: str | None) -> None:
        self._answers.auth_token = token

    @property
    def tally(self) -> CapacityTally:
        """What was counted under the capacity; zeros without one."""
        return CapacityTally() if self._sink is None else self._sink.tally

    @property
    def calls(self) -> list[Call]:
        """Every remembered call in order of arrival, including refused ones and unknown paths."""
        return list(self._calls)

    @property
    def conversions(self) -> list[Call]:
        """The accepted conversions, including duplicates."""
        return [call for call in self._calls if call.accepted and call.path.endswith("/Conversions")]

    @property
    def page_loads(self) -> list[Call]:
        """The accepted page loads."""
        return [call for call in self._calls if call.accepted and call.path == PAGE_LOAD_PATH]

    @property
    def duplicates(self) -> int:
        """How many accepted conversions were duplicates since the start or the last ``clear``."""
        return self._duplicates

    def clear(self) -> None:
        """Forget all calls, order ids and counts; the script stays."""
        self._calls.clear()
        self._orders.clear()
        self._duplicates = 0

    def script(self, rules: Sequence[Rule | Mapping[str, Any]]) -> None:
        """Replace the scripted rules; raises ScriptError, and keeps the old ones, if they are unusable."""
        try:
            script = msgspec.convert({"rules": [msgspec.to_builtins(rule) for rule in rules]}, Script)
        except (msgspec.ValidationError, TypeError) as error:
            raise ScriptError(str(error)) from error
        self._script = RunningScript(script)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        if request.path.startswith("/_"):
            return self._control(request.method, request.path, body)
        if self._sink is None:
            return await self._answer(request, body)
        sink = self._sink
        arrival = sink.arrive(self._clock())
        try:
            return await self._answer_within(sink.capacity, arrival, request, body)
        finally:
            sink.leave(arrival)

    async def _answer_within(
        self, capacity: Capacity, arrival: Arrival, request: web.BaseRequest, body: bytes
    ) -> web.StreamResponse:
        """Answer as the capacity allows."""
        if arrival.status == 0:
            await asyncio.sleep(NEVER)
        await asyncio.sleep(arrival.seconds)
        headers: Mapping[str, str] = {}
        if capacity.announced is not None and arrival.allowance is not None:
            # Absolute times refer to the answer's Date, which is by this server's clock, not the machine's.
            now = self._clock()
            headers = {"Date": formatdate(now, usegmt=True), **announce(capacity.announced, arrival.allowance, now)}
        if arrival.status == 200:
            return await self._answer(request, body, headers)
        answer = FakeAnswer(arrival.status, failure(phrase(arrival.status)), headers=headers)
        self._remember(self._received(request, body), answer, dropped=False)
        return render(answer, xml=False)

    async def _answer(
        self, request: web.BaseRequest, body: bytes, headers: Mapping[str, str] = MappingProxyType({})
    ) -> web.StreamResponse:
        """Answer by the script, or by impact.com's rules."""
        received = self._received(request, body)
        rule = self._script.rule_for(received.path, received.form.fields)
        answer = self._answers.answer(received) if rule is None else self._scripted(received, rule)
        # Remembered before any wait: a client that gives up early has still sent its conversion.
        self._remember(received, answer, dropped=rule is not None and rule.reset is not None)
        if rule is not None and rule.delay:
            await asyncio.sleep(rule.delay)
        if rule is not None and rule.reset is not None and request.transport is not None:
            request.transport.abort()
        if headers:
            answer = msgspec.structs.replace(answer, headers={**headers, **answer.headers})
        return render(answer, xml=received.wants_xml or (rule is not None and rule.xml))

    def _received(self, request: web.BaseRequest, body: bytes) -> ReceivedRequest:
        headers = dict(request.headers)
        authorization = request.headers.get("Authorization")
        if authorization is not None:
            headers = {n: _masked(value) if n.lower() == "authorization" else value for n, value in headers.items()}
        return ReceivedRequest(
            method=request.method,
            path=request.path,
            query=request.query,
            headers=headers,
            authorization=authorization,
            wants_xml="application/json" not in request.headers.get("Accept", ""),
            form=parse_body(request.headers.get("Content-Type"), body),
            received_at=self._clock(),
        )

    def _remember(self, received: ReceivedRequest, answer: FakeAnswer, *, dropped: bool) -> None:
        duplicate = (
            answer.accepted
            and received.account_sid is not None
            and self._orders.add(received.form.fields, received.received_at)
        )
        self._duplicates += duplicate
        self._calls.append(
            Call(
                method=received.method,
                path=received.path,
                headers=received.headers,
                form=received.form.fields,
                status=0 if dropped else answer.status,
                received_at=received.received_at,
                accepted=answer.accepted,
                duplicate=duplicate,
            )
        )

    def _scripted(self, received: ReceivedRequest, rule: Rule) -> FakeAnswer:
        if rule.reset == "before":
            return FakeAnswer(0, None)
        replaced = rule.status is not None or rule.body is not msgspec.UNSET
        answer = _replacement(received, rule) if replaced else self._answers.answer(received)
        limits = {}
        if rule.rate_limit is not None:
            allowance = Allowance(rule.limit, rule.remaining, rule.reset_after)
            limits = announce(rule.rate_limit, allowance, self._clock())
        return msgspec.structs.replace(answer, headers={**answer.headers, **limits, **rule.headers})

    def _control(self, method: str, path: str, body: bytes) -> web.Response:
        match method, path:
            case "GET", "/_calls":
                return json_response(200, {"calls": self.calls, "duplicates": self._duplicates})
            case "DELETE", "/_calls":
                self.clear()
                return web.Response(status=204)
            case "GET", "/_script":
                return json_response(200, self._script.script)
            case "PUT", "/_script":
                return self._put_script(body)
            case "GET", "/_capacity":
                return json_response(200, {"capacity": self.capacity, "tally": self.tally})
            case "PUT", "/_capacity":
                return self._put_capacity(body)
            case _, ("/_calls" | "/_script" | "/_capacity"):
                return json_response(405, failure("Method Not Allowed"))
            case _:
                return json_response(404, failure("Not Found"))

    def _put_script(self, body: bytes) -> web.Response:
        try:
            self._script = RunningScript(msgspec.json.decode(body, type=Script))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return json_response(400, failure("Wrong script", "body", str(error)))
        return json_response(200, self._script.script)

    def _put_capacity(self, body: bytes) -> web.Response:
        try:
            self.capacity = msgspec.json.decode(body, type=Capacity | None)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return json_response(400, failure("Wrong capacity", "body", str(error)))
        return json_response(200, {"capacity": self.capacity, "tally": self.tally})


def _replacement(received: ReceivedRequest, rule: Rule) -> FakeAnswer:
    """Return the status and body of a rule, with an ordinary body where it has none."""
    status = 200 if rule.status is None else rule.status
    accepted = status < 300
    if rule.body is not msgspec.UNSET:
        return FakeAnswer(status, rule.body, accepted)
    return FakeAnswer(status, acceptance(received) if accepted else failure(phrase(status)), accepted)


def _masked(authorization: str) -> str:
    user, _ = credentials(authorization)
    scheme = authorization.partition(" ")[0] if " " in authorization else ""
    return f"{scheme} {user}:***" if user else f"{scheme} ***".lstrip()
