"""``POST /v{0,1}/destinations/impact/proxy``: delivers one request and reports the status of its jobs.

Only a permanent failure aborts a job (400). Everything else is a 429 with the actual cause in the text: the router
retries a 429 without limit, but gives up on a 5xx after three hours.
https://github.com/rudderlabs/rudder-server/blob/master/router/transformer/transformer.go
"""

import re
from collections.abc import Callable, Mapping
from math import isfinite
from time import perf_counter
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec

from impact_plugin.config.settings import Settings
from impact_plugin.delivery.endpoints import FORM_TYPE
from impact_plugin.delivery.identity import order_identity, visitor_lane
from impact_plugin.delivery.pipeline import Deliveries, DeliveryRequest
from impact_plugin.delivery.policy import Cause, Verdict, held_back
from impact_plugin.errors import EnvelopeError
from impact_plugin.telemetry import Telemetry
from impact_plugin.telemetry.events.delivery import DeliveryEnded
from impact_plugin.telemetry.events.faults import RequestFault
from impact_transformers import hash_email, holds_email
from impact_transformers.events import UNREADABLE

STATUS: Final = {"delivered": 200, "retry": 429, "rejected": 400}
MARGIN_SECONDS: Final = 0.5
"""We respond this long before the router's own timeout."""

MIN_SECONDS: Final = 0.1
MAX_SECONDS: Final = 600.0
"""The timeout of the router's own client."""

_CONVERSIONS: Final = re.compile(r"/Advertisers/([A-Za-z0-9_-]{1,64})/Conversions")
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ProxyBody(msgspec.Struct, frozen=True):
    """The body formats; we accept forms only."""

    FORM: dict[str, Any] | None = None
    JSON: dict[str, Any] | None = None
    JSON_ARRAY: dict[str, Any] | None = None
    XML: dict[str, Any] | None = None
    GZIP: dict[str, Any] | None = None


class ProxyConfig(msgspec.Struct, frozen=True):
    """The fields that matter of the destination's configuration; values may be anything, for example templates."""

    account_sid: Any = msgspec.field(name="accountSID", default="")
    duplicate_orders: Any = msgspec.field(name="duplicateOrders", default="")


class ProxyRequest(msgspec.Struct, frozen=True, rename="camel"):
    """The request to deliver; ``metadata`` is an array (v1) or one object (v0)."""

    endpoint: str
    metadata: msgspec.Raw
    body: ProxyBody = ProxyBody()
    headers: dict[str, str] | None = None
    params: dict[str, Any] | None = None
    method: str = "POST"
    destination_config: ProxyConfig | None = None


class _Attempt(msgspec.Struct, frozen=True, rename="camel"):
    attempt_num: int = 0
    destination_id: str = ""
    workspace_id: str = ""


class ProxyJobReply(msgspec.Struct, frozen=True, rename="camel"):
    """The status of one job; ``error`` has impact.com's response even on success, as the router expects."""

    status_code: int
    metadata: msgspec.Raw
    error: str


class ProxyOutputV1(msgspec.Struct, frozen=True, rename="camel"):
    """v1: a status for each job."""

    status: int
    message: str
    response: list[ProxyJobReply]
    stat_tags: dict[str, str]
    auth_error_category: str = ""


class ProxyOutputV0(msgspec.Struct, frozen=True, rename="camel"):
    """v0: one status for all jobs, which is also the HTTP status."""

    status: int
    message: str
    destination_response: str
    stat_tags: dict[str, str]
    auth_error_category: str = ""


class ProxyReply(msgspec.Struct, frozen=True):
    """The body of the response."""

    output: ProxyOutputV1 | ProxyOutputV0


_decoder: Final = msgspec.json.Decoder(ProxyRequest)
_encoder: Final = msgspec.json.Encoder()
_attempts: Final = msgspec.json.Decoder(list[_Attempt])
_raws: Final = msgspec.json.Decoder(list[msgspec.Raw])


class Proxy:
    """Delivers requests for the router, within its timeout."""

    def __init__(self, settings: Settings, deliveries: Deliveries, telemetry: Telemetry) -> None:
        self._api = urlsplit(settings.impact.api_url)
        self._tracking = urlsplit(settings.impact.tracking_url)
        self._timeout = settings.delivery.timeout_seconds
        self._deliveries = deliveries
        self._telemetry = telemetry

    async def handle(
        self, raw: bytes, timeout_ms: str | None, *, version: str, is_abandoned: Callable[[], bool]
    ) -> tuple[int, bytes]:
        """Deliver one request; returns the HTTP status and the body of the response.

        ``is_abandoned`` returns whether the router has disconnected. Raises :class:`EnvelopeError` for a body that does
        not follow the protocol.
        """
        started = perf_counter()
        request, jobs, attempts = _decode(raw, version)
        delivery = self._delivery_request(request, max((one.attempt_num for one in attempts), default=0))
        verdict = delivery if isinstance(delivery, Verdict) else await self._deliver(delivery, timeout_ms, is_abandoned)
        label = "conversions" if request.endpoint.endswith("/Conversions") else "pageload"
        self._telemetry.emit(DeliveryEnded(label, verdict.result, verdict.cause, perf_counter() - started))
        status = STATUS[verdict.result]
        tags = {} if verdict.result == "delivered" else _tags(verdict, attempts)
        if version == "v1":
            replies = [ProxyJobReply(status, job, verdict.text) for job in jobs]
            return 200, _encoder.encode(ProxyReply(ProxyOutputV1(status, verdict.text, replies, tags)))
        return status, _encoder.encode(ProxyReply(ProxyOutputV0(status, verdict.text, verdict.text, tags)))

    async def _deliver(
        self, delivery: DeliveryRequest, timeout_ms: str | None, is_abandoned: Callable[[], bool]
    ) -> Verdict:
        try:
            seconds = self._seconds(timeout_ms)
            return await self._deliveries.deliver(delivery, seconds=seconds, is_abandoned=is_abandoned)
        except Exception as error:  # noqa: BLE001 - the boundary of one delivery: the router would abort the jobs after a 5xx
            self._telemetry.emit(RequestFault("proxy", type(error).__name__, error))
            return held_back(Cause.FAULT, "a defect of impact-plugin; see its log")

    def _seconds(self, timeout_ms: str | None) -> float:
        """Return how long the delivery may take: the router's timeout less a margin for our response."""
        try:
            asked = float(timeout_ms) / 1000 if timeout_ms else self._timeout
        except ValueError:
            asked = self._timeout
        asked = min(asked, MAX_SECONDS) if isfinite(asked) else self._timeout
        return max(min(asked - MARGIN_SECONDS, asked * 0.9), MIN_SECONDS)

    def _delivery_request(self, request: ProxyRequest, attempt: int) -> DeliveryRequest | Verdict:
        """Return the request to send, or the verdict that rejects it."""
        tracking = self._is_tracking(request.endpoint)
        if tracking is None or request.method.upper() != "POST" or request.params:
            return _refuse(Cause.ENDPOINT_NOT_ALLOWED, "only the configured addresses of impact.com may be called")
        form = request.body.FORM
        others = (request.body.JSON, request.body.JSON_ARRAY, request.body.XML, request.body.GZIP)
        if not form or any(others):
            return _refuse(Cause.UNSUPPORTED_BODY, "the request must carry one form")
        if not all(isinstance(value, str) for value in form.values()):
            return _refuse(Cause.UNSUPPORTED_BODY, "form values must be text: a number may be corrupted already")
        clean = _without_clear_email(form)
        exposed = next((name for name, value in clean.items() if holds_email(value)), None)
        if exposed is not None:
            return _refuse(Cause.EMAIL_IN_PARAMETER, f"{exposed} would carry an e-mail address in clear")
        config = request.destination_config or ProxyConfig()
        account = _account(request.endpoint, config, clean)
        return DeliveryRequest(
            account,
            "pageload" if tracking else "conversions",
            request.endpoint,
            _headers(request.headers or {}, with_credentials=not tracking),
            urlencode(clean).encode(),
            visitor_lane(clean),
            None if tracking else order_identity(account, clean),
            attempt,
            resend=config.duplicate_orders == "send",
        )

    def _is_tracking(self, endpoint: str) -> bool | None:
        """Whether the endpoint is on the tracking host, None if it is on neither configured host."""
        try:
            url = urlsplit(endpoint)
        except ValueError:
            return None
        if url.query or url.fragment:
            return None
        for base, tracking in ((self._tracking, True), (self._api, False)):
            if (url.scheme, url.netloc) == (base.scheme, base.netloc):
                prefix = base.path.rstrip("/")
                path = url.path.removeprefix(prefix) if url.path.startswith(prefix) else ""
                if path == "/PageLoad" if tracking else _CONVERSIONS.fullmatch(path):
                    return tracking
        return None


def _decode(raw: bytes, version: str) -> tuple[ProxyRequest, list[msgspec.Raw], list[_Attempt]]:
    """Return the request, its jobs' metadata as received, and what we read of them."""
    try:
        request = _decoder.decode(raw)
        listed = request.metadata if version == "v1" else msgspec.Raw(b"[" + bytes(request.metadata) + b"]")
        return request, _raws.decode(listed), _attempts.decode(listed)
    except UNREADABLE as error:
        raise EnvelopeError(str(error)) from error


def _account(endpoint: str, config: ProxyConfig, form: Mapping[str, str]) -> str:
    """Return the account whose limits apply: from the URL, else as configured, else the program."""
    addressed = _CONVERSIONS.search(endpoint)
    if addressed is not None:
        return addressed[1]
    configured = config.account_sid
    if isinstance(configured, str) and _ACCOUNT.fullmatch(configured):
        return configured
    return f"campaign {form.get('CampaignId', '')[:10]}"


def _refuse(cause: Cause, text: str) -> Verdict:
    return Verdict("rejected", cause, f"{cause}: {text}")


def _without_clear_email(form: Mapping[str, str]) -> dict[str, str]:
    """Return the form with CustomerEmail hashed: other transformers may have left it in clear."""
    clean = dict(form)
    address = clean.get("CustomerEmail")
    if address is not None:
        clean.pop("CustomerEmail")
        hashed = hash_email(address)
        clean |= {"CustomerEmail": hashed} if hashed else {}
    return clean


def _headers(given: Mapping[str, str], *, with_credentials: bool) -> dict[str, str]:
    """Return our own headers, plus the router's credentials if the endpoint needs them; drops all others."""
    headers = {"Content-Type": FORM_TYPE, "Accept": "application/json", "User-Agent": "impact-plugin"}
    if with_credentials:
        headers |= {name: value for name, value in given.items() if name.lower() == "authorization"}
    return headers


def _tags(verdict: Verdict, attempts: list[_Attempt]) -> dict[str, str]:
    first = attempts[0] if attempts else _Attempt()
    tags = {
        "destType": "IMPACT",
        "module": "destination",
        "implementation": "native",
        "feature": "dataDelivery",
        "errorCategory": "network",
        "errorType": "aborted" if verdict.result == "rejected" else "throttled",
        "meta": str(verdict.cause),
        "destinationId": first.destination_id,
        "workspaceId": first.workspace_id,
    }
    return {name: value for name, value in tags.items() if value}
