"""FakeImpact: both API hosts of impact.com on one local port, for tests, load runs and rehearsals.

impact.com offers no sandbox (https://integrations.impact.com/integration-guides/end-to-end-tests), so this server
judges requests by the published rules, answers in the published shapes and remembers what came in:

- ``POST /PageLoad`` is the tracking host: https://integrations.impact.com/impact-brand/reference/create-a-pageload
- ``POST /Advertisers/{AccountSID}/Conversions`` is the API host:
  https://integrations.impact.com/impact-brand/reference/submit-a-conversion
- ``GET``/``DELETE /_calls`` show and forget the calls; ``GET``/``PUT /_script`` show and replace the scripted faults;
  ``GET``/``PUT /_capacity`` show and replace how much is taken.

The control paths ask for no password: keep the server on the loopback interface or inside a test network.
Bodies are limited to 1 MiB, aiohttp's own default (a longer one is answered 413 and not remembered).
"""

import asyncio
import base64
import binascii
import html
import math
import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import formatdate
from http import HTTPStatus
from types import MappingProxyType, TracebackType
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import parse_qs, urlsplit

import msgspec
from aiohttp import web

from impact_plugin.errors import ImpactPluginError
from impact_plugin.testing.capacity import Arrival, Capacity, CapacityTally, RateLimit, Sink
from impact_plugin.testing.impact_rules import (
    EVENT_TYPES,
    Form,
    Report,
    RuleViolation,
    canonical,
    check_conversion,
    check_page_load,
    parse_body,
)

_HeaderName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")]
_HeaderValue = Annotated[str, msgspec.Meta(pattern=r"^[\x20-\x7e\t]*\Z")]
_FRAMING_HEADERS: Final = frozenset({"content-length", "transfer-encoding"})
_PAGE_LOAD_PATH: Final = "/PageLoad"
NEVER: Final = 86_400.0
"""Seconds for which a request that gets no answer is kept; its sender gives up long before."""

_GENERATED_ORDER_ID: Final = "IR_AN_64_TS"
_JSON_HEADERS: Final = MappingProxyType({"Content-Type": "application/json"})


class ScriptError(ImpactPluginError):
    """A script that cannot be followed; the message names the field by its path, as in ``$.rules[0].status``."""


class Call(msgspec.Struct, frozen=True):
    """One remembered request.

    ``headers`` keep the sender's spelling, but of ``Authorization`` only the scheme and the user. ``status`` is the
    answer's HTTP status, 0 when the connection was dropped instead. ``received_at`` is in seconds since the epoch.
    ``accepted`` tells that impact.com would have taken the conversion or page load; ``duplicate`` that it had the same
    order already.
    """

    method: str
    path: str
    headers: dict[str, str]
    form: dict[str, str]
    status: int
    received_at: float
    accepted: bool = False
    duplicate: bool = False


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which calls a rule is for: the path contains ``path``, and every named parameter has exactly that value."""

    path: str = ""
    parameter: dict[str, str] = msgspec.field(default_factory=dict)


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One scripted behaviour; the first rule that matches and is not used up decides.

    ``times``: how many calls it serves, None for all. ``status`` or ``body`` replace the ordinary answer (no checks are
    made then; a status below 300 accepts the call). ``delay``: seconds, up to 120, before the answer; the call is taken
    and remembered before the wait. ``reset`` drops the connection without an answer, ``before`` or ``after`` the call
    was taken. ``rate_limit`` adds headers that announce ``limit``, ``remaining`` and ``reset_after`` (seconds) in that
    form. ``xml`` renders the answer as XML whatever the client accepts. A ``body`` of text is sent as it is.
    """

    match: Match = Match()
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] | None = None
    headers: dict[_HeaderName, _HeaderValue] = msgspec.field(default_factory=dict)
    body: Any = msgspec.UNSET
    delay: Annotated[float, msgspec.Meta(ge=0, le=120)] = 0.0
    reset: Literal["before", "after"] | None = None
    rate_limit: RateLimit | None = None
    limit: Annotated[int, msgspec.Meta(ge=0)] = 1000
    remaining: Annotated[int, msgspec.Meta(ge=0)] = 0
    reset_after: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    xml: bool = False

    def __post_init__(self) -> None:
        if self.reset is not None and (self.status is not None or self.body is not msgspec.UNSET):
            raise ValueError("reset: a dropped connection has neither status nor body")
        if framing := [name for name in self.headers if name.lower() in _FRAMING_HEADERS]:
            raise ValueError(f"headers: {framing[0]} is set by the server")


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``PUT /_script``: all rules, in order."""

    rules: list[Rule]


class _Arrival(msgspec.Struct, frozen=True):
    method: str
    path: str
    query: Mapping[str, str]
    headers: dict[str, str]
    authorization: str | None
    wants_xml: bool
    form: Form
    received_at: float

    @property
    def account_sid(self) -> str | None:
        """The account of a conversions path, None for every other path."""
        match self.path.split("/"):
            case ["", "Advertisers", sid, "Conversions"] if sid:
                return sid
            case _:
                return None


class _Answer(msgspec.Struct, frozen=True):
    status: int
    content: Any
    accepted: bool = False
    headers: Mapping[str, str] = MappingProxyType({})


class FakeImpact:
    """A running stand-in for impact.com: ``async with FakeImpact() as impact: ... impact.url``.

    ``port`` 0 takes a free one. ``dedupe_window``: seconds during which a second conversion of the same event type and
    order id counts as a duplicate (it is answered like the first, as impact.com does); None keeps no record.
    ``auth_token``: the only password accepted, None accepts any. ``forbidden`` answers 403 to every authenticated
    conversion, like a token without that scope. ``strict`` refuses two things that impact.com tolerates: credentials
    sent to the tracking host, and a page load's e-mail address in clear. ``maxlen``: how many calls (and order ids) are
    remembered, 100,000 unless told; the oldest are forgotten first. ``clock``: seconds since the epoch. ``capacity``:
    how much is taken and how fast, without end unless told; it may be replaced at any time.
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
        self._dedupe_window = dedupe_window
        self._auth_token = auth_token
        self._forbidden = forbidden
        self._strict = strict
        self._maxlen = maxlen
        self._clock = clock
        self._calls: deque[Call] = deque(maxlen=maxlen)
        self._orders: dict[tuple[str, str], float] = {}
        self._duplicates = 0
        self._rules: list[Rule] = []
        self._uses: list[int] = []
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        # The low-level server: with two endpoints, a router and its middlewares would only cost load tests their speed.
        # A sender that gives up frees what it held; its request was remembered before.
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
        """The base address, without a trailing slash; RuntimeError when the server is not running."""
        if self._runner is None:
            raise RuntimeError("FakeImpact is not running; use it as an async context manager")
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def capacity(self) -> Capacity | None:
        """How much is taken and how fast; None without end, at once. A replaced one keeps the counts of the first."""
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
    def tally(self) -> CapacityTally:
        """What the capacity has counted; nothing without one."""
        return CapacityTally() if self._sink is None else self._sink.tally

    @property
    def calls(self) -> list[Call]:
        """Every remembered call in order of arrival, refused ones and unknown paths included."""
        return list(self._calls)

    @property
    def conversions(self) -> list[Call]:
        """The conversions that were accepted, duplicates included."""
        return [call for call in self._calls if call.accepted and call.path.endswith("/Conversions")]

    @property
    def page_loads(self) -> list[Call]:
        """The page loads that were accepted."""
        return [call for call in self._calls if call.accepted and call.path == _PAGE_LOAD_PATH]

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
        """Replace the scripted behaviours; ScriptError names what is wrong and leaves the old ones."""
        try:
            script = msgspec.convert({"rules": [msgspec.to_builtins(rule) for rule in rules]}, Script)
        except (msgspec.ValidationError, TypeError) as error:
            raise ScriptError(str(error)) from error
        self._follow(script)

    def _follow(self, script: Script) -> None:
        self._rules = script.rules
        self._uses = [0] * len(script.rules)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        if request.path.startswith("/_"):
            return self._control(request.method, request.path, body)
        if self._sink is None:
            return await self._take(request, body)
        sink = self._sink
        found = sink.arrive(self._clock())
        try:
            return await self._take_within(found, request, body)
        finally:
            sink.leave(found)

    async def _take_within(self, found: Arrival, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        """Answer as the capacity says."""
        if found.status == 0:
            await asyncio.sleep(NEVER)
        await asyncio.sleep(found.seconds)
        headers: Mapping[str, str] = {}
        announced = self._sink.capacity.announced if self._sink is not None else None
        if announced is not None and found.allowance is not None:
            told = found.allowance
            rule = Rule(limit=told.limit, remaining=told.remaining, reset_after=told.reset_after)
            # Absolute times count from the answer's Date, which is this server's clock, not the machine's.
            now = self._clock()
            headers = {"Date": formatdate(now, usegmt=True), **_RATE_LIMITS[announced](rule, now)}
        if found.status == 200:
            return await self._take(request, body, headers)
        answer = _Answer(found.status, _failure(_phrase(found.status)), headers=headers)
        self._remember(self._arrival(request, body), answer, dropped=False)
        return _render(answer, xml=False)

    async def _take(
        self, request: web.BaseRequest, body: bytes, headers: Mapping[str, str] = MappingProxyType({})
    ) -> web.StreamResponse:
        """Answer by the script, or by impact.com's rules."""
        arrival = self._arrival(request, body)
        rule = self._rule_for(arrival)
        answer = self._answer(arrival, rule)
        # Taken and remembered before any wait: a client that gives up early has still sent its conversion.
        self._remember(arrival, answer, dropped=rule is not None and rule.reset is not None)
        if rule is not None and rule.delay:
            await asyncio.sleep(rule.delay)
        if rule is not None and rule.reset is not None and request.transport is not None:
            request.transport.abort()
        if headers:
            answer = msgspec.structs.replace(answer, headers={**headers, **answer.headers})
        return _render(answer, xml=arrival.wants_xml or (rule is not None and rule.xml))

    def _arrival(self, request: web.BaseRequest, body: bytes) -> _Arrival:
        headers = dict(request.headers)
        authorization = request.headers.get("Authorization")
        if authorization is not None:
            headers = {n: _masked(value) if n.lower() == "authorization" else value for n, value in headers.items()}
        return _Arrival(
            method=request.method,
            path=request.path,
            query=request.query,
            headers=headers,
            authorization=authorization,
            wants_xml="application/json" not in request.headers.get("Accept", ""),
            form=parse_body(request.headers.get("Content-Type"), body),
            received_at=self._clock(),
        )

    def _rule_for(self, arrival: _Arrival) -> Rule | None:
        for position, rule in enumerate(self._rules):
            if rule.times is not None and self._uses[position] >= rule.times:
                continue
            if rule.match.path in arrival.path and rule.match.parameter.items() <= arrival.form.fields.items():
                self._uses[position] += 1
                return rule
        return None

    def _remember(self, arrival: _Arrival, answer: _Answer, *, dropped: bool) -> None:
        duplicate = answer.accepted and arrival.account_sid is not None and self._is_duplicate(arrival)
        self._duplicates += duplicate
        self._calls.append(
            Call(
                method=arrival.method,
                path=arrival.path,
                headers=arrival.headers,
                form=arrival.form.fields,
                status=0 if dropped else answer.status,
                received_at=arrival.received_at,
                accepted=answer.accepted,
                duplicate=duplicate,
            )
        )

    def _is_duplicate(self, arrival: _Arrival) -> bool:
        """Look the order up and note it; an order id is unique per event type.

        https://integrations.impact.com/impact-brand/reference/submit-a-conversion
        """
        fields = arrival.form.fields
        order_id = canonical(fields, "OrderId")
        # For this macro impact.com makes up an order id of its own, so that no two are the same.
        if self._dedupe_window is None or order_id is None or order_id == _GENERATED_ORDER_ID:
            return False
        key = (next((fields[name] for name in EVENT_TYPES if name in fields), ""), order_id)
        first = self._orders.get(key)
        if first is not None and arrival.received_at - first < self._dedupe_window:
            return True
        self._orders.pop(key, None)
        self._orders[key] = arrival.received_at
        if len(self._orders) > self._maxlen:
            del self._orders[next(iter(self._orders))]
        return False

    def _answer(self, arrival: _Arrival, rule: Rule | None) -> _Answer:
        if rule is None:
            return self._ordinary(arrival)
        if rule.reset == "before":
            return _Answer(0, None)
        scripted = rule.status is not None or rule.body is not msgspec.UNSET
        answer = self._scripted(arrival, rule) if scripted else self._ordinary(arrival)
        limits = _RATE_LIMITS[rule.rate_limit](rule, self._clock()) if rule.rate_limit else {}
        headers = {**answer.headers, **limits, **rule.headers}
        return _Answer(answer.status, answer.content, answer.accepted, headers)

    def _scripted(self, arrival: _Arrival, rule: Rule) -> _Answer:
        status = 200 if rule.status is None else rule.status
        accepted = status < 300
        if rule.body is not msgspec.UNSET:
            return _Answer(status, rule.body, accepted)
        if accepted:
            return _Answer(status, self._success(arrival, ()), accepted)
        return _Answer(status, _failure(_phrase(status)))

    def _ordinary(self, arrival: _Arrival) -> _Answer:
        sid = arrival.account_sid
        if sid is None and arrival.path != _PAGE_LOAD_PATH:
            return _Answer(404, _failure("Not Found"))
        if arrival.method != "POST":
            return _Answer(405, _failure("Method Not Allowed"), headers={"Allow": "POST"})
        if sid is not None and (denial := self._denial(sid, arrival.authorization)) is not None:
            return denial
        report = self._judge(arrival)
        if not report.errors:
            return _Answer(200, self._success(arrival, report.warnings), accepted=True)
        if sid is None:
            return _Answer(400, {"errors": report.errors, "warnings": report.warnings})
        return _Answer(400, {"Status": "ERROR", "errors": report.errors})

    def _denial(self, sid: str, authorization: str | None) -> _Answer | None:
        """Check HTTP Basic: https://integrations.impact.com/agency-v3/readme/status-and-error-codes ."""
        user, token = _credentials(authorization)
        if user != sid or not token or self._auth_token not in (None, token):
            content = _failure("Authentication failed", "Authorization", "HTTP Basic with AccountSID and AuthToken")
            return _Answer(401, content, headers={"WWW-Authenticate": 'Basic realm="impact.com"'})
        if self._forbidden:
            return _Answer(403, _failure("Access denied", "Authorization", "the token has no scope for this endpoint"))
        return None

    def _judge(self, arrival: _Arrival) -> Report:
        form = arrival.form
        problems = [*form.problems]
        # https://integrations.impact.com/impact-brand/reference/versioning allows this one in the query.
        problems += [_error(name, "belongs in the body") for name in arrival.query if name != "IrVersion"]
        if arrival.path == _PAGE_LOAD_PATH and self._strict and arrival.authorization is not None:
            problems.append(_error("Authorization", "the tracking host takes no credentials; do not send them here"))
        if problems and not form.fields:
            return Report(tuple(problems))
        is_page_load = arrival.path == _PAGE_LOAD_PATH
        report = check_page_load(form.fields, strict=self._strict) if is_page_load else check_conversion(form.fields)
        return Report((*problems, *report.errors), report.warnings)

    def _success(self, arrival: _Arrival, warnings: tuple[RuleViolation, ...]) -> dict[str, object]:
        if arrival.path != _PAGE_LOAD_PATH:
            submission = f"/Advertisers/{arrival.account_sid}/APISubmissions/A-{uuid.uuid4()}"
            return {"Status": "QUEUED", "QueuedUri": submission}
        landing_page = _landing_page(arrival.form.fields.get("PageUrl", ""))
        return {
            **({"landingPage": landing_page} if landing_page else {}),
            "clickId": str(uuid.uuid4()),
            "sessionStart": datetime.fromtimestamp(arrival.received_at, UTC).isoformat(timespec="seconds"),
            "warnings": warnings,
        }

    def _control(self, method: str, path: str, body: bytes) -> web.Response:
        match method, path:
            case "GET", "/_calls":
                return _json(200, {"calls": self.calls, "duplicates": self._duplicates})
            case "DELETE", "/_calls":
                self.clear()
                return web.Response(status=204)
            case "GET", "/_script":
                return _json(200, Script(self._rules))
            case "PUT", "/_script":
                return self._put_script(body)
            case "GET", "/_capacity":
                return _json(200, {"capacity": self.capacity, "tally": self.tally})
            case "PUT", "/_capacity":
                return self._put_capacity(body)
            case _, ("/_calls" | "/_script" | "/_capacity"):
                return _json(405, _failure("Method Not Allowed"))
            case _:
                return _json(404, _failure("Not Found"))

    def _put_script(self, body: bytes) -> web.Response:
        try:
            self._follow(msgspec.json.decode(body, type=Script))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _json(400, _failure("Wrong script", "body", str(error)))
        return _json(200, Script(self._rules))

    def _put_capacity(self, body: bytes) -> web.Response:
        try:
            self.capacity = msgspec.json.decode(body, type=Capacity | None)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _json(400, _failure("Wrong capacity", "body", str(error)))
        return _json(200, {"capacity": self.capacity, "tally": self.tally})


def _error(field: str, message: str) -> RuleViolation:
    return RuleViolation(field, "ERROR", message)


def _failure(message: str, field: str | None = None, detail: str = "") -> dict[str, object]:
    """Build the brand API's general error: https://integrations.impact.com/impact-brand/reference/errors ."""
    content: dict[str, object] = {"Status": "ERROR", "Message": message}
    return content if field is None else {**content, "Errors": [{"Field": field, "Message": detail}]}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def _credentials(authorization: str | None) -> tuple[str, str]:
    """Split HTTP Basic into user and password; two empty texts for anything else."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password


def _masked(authorization: str) -> str:
    user, _ = _credentials(authorization)
    scheme = authorization.partition(" ")[0] if " " in authorization else ""
    return f"{scheme} {user}:***" if user else f"{scheme} ***".lstrip()


def _landing_page(page_url: str) -> str | None:
    """Return where a tracking link (``/c/<partner>/<ad>/<program>``) leads, None for every other address."""
    if "/c/" not in page_url:
        return None
    try:
        parts = urlsplit(page_url)
    except ValueError:
        return None
    match parts.path.split("/"):
        case ["", "c", partner, ad, program] if f"{partner}{ad}{program}".isdigit():
            return parse_qs(parts.query).get("u", ["https://www.example.com/"])[0]
        case _:
            return None


def _json(status: int, content: object) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(content), headers=_JSON_HEADERS)


def _render(answer: _Answer, *, xml: bool) -> web.Response:
    if answer.status == 0:
        return web.Response()
    if isinstance(answer.content, str):
        body, content_type = answer.content.encode(), "text/plain; charset=utf-8"
    elif xml:
        content = msgspec.to_builtins(answer.content)
        body, content_type = _xml("ImpactRadiusResponse", content).encode(), "application/xml; charset=utf-8"
    else:
        body, content_type = msgspec.json.encode(answer.content), "application/json"
    own = {} if any(name.lower() == "content-type" for name in answer.headers) else {"Content-Type": content_type}
    return web.Response(status=answer.status, body=body, headers={**own, **answer.headers})


def _xml(tag: str, content: object) -> str:
    """Write decoded JSON as impact.com's XML: capitalised tags, and a list of ``Error`` inside ``Errors``."""
    match content:
        case dict():
            inner = "".join(_xml(f"{name[:1].upper()}{name[1:]}", value) for name, value in content.items())
        case list() | tuple():
            inner = "".join(_xml(tag.removesuffix("s"), value) for value in content)
        case None:
            inner = ""
        case bool():
            inner = "true" if content else "false"
        case _:
            # XML has no way to write control characters, and a parameter's name may hold them.
            inner = html.escape("".join(char if char.isprintable() else "?" for char in str(content)))
    return f"<{tag}>{inner}</{tag}>"


def _x_rate_limit(rule: Rule, reset: float) -> dict[str, str]:
    return {
        "X-RateLimit-Limit": str(rule.limit),
        "X-RateLimit-Remaining": str(rule.remaining),
        "X-RateLimit-Reset": str(math.ceil(reset)),
    }


def _x_rate_limit_hour(rule: Rule, _: float) -> dict[str, str]:
    """Spell the partner API's variant: https://integrations.impact.com/partner-api-reference/readme/rate-limits ."""
    return {
        "X-RateLimit-Limit-hour": str(rule.limit),
        "X-RateLimit-Remaining-hour": str(rule.remaining),
        "RateLimit-Reset": str(math.ceil(rule.reset_after)),
    }


def _rate_limit_draft(rule: Rule, _: float) -> dict[str, str]:
    """Spell the IETF draft: https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-ratelimit-headers-06 ."""
    return {
        "RateLimit-Limit": str(rule.limit),
        "RateLimit-Remaining": str(rule.remaining),
        "RateLimit-Reset": str(math.ceil(rule.reset_after)),
    }


_RATE_LIMITS: Final[Mapping[RateLimit, Callable[[Rule, float], dict[str, str]]]] = MappingProxyType(
    {
        "x-ratelimit": lambda rule, _: _x_rate_limit(rule, rule.reset_after),
        "x-ratelimit-epoch": lambda rule, now: _x_rate_limit(rule, now + rule.reset_after),
        "x-ratelimit-hour": _x_rate_limit_hour,
        "ratelimit-draft": _rate_limit_draft,
        "retry-after-seconds": lambda rule, _: {"Retry-After": str(math.ceil(rule.reset_after))},
        "retry-after-float": lambda rule, _: {"Retry-After": str(rule.reset_after)},
        # Rounded up: a date in whole seconds must not invite the client back early.
        "retry-after-date": lambda rule, now: {
            "Retry-After": formatdate(math.ceil(now + rule.reset_after), usegmt=True)
        },
    }
)
