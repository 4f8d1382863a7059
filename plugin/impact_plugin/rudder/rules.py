"""What rudder-server accepts from a transformer, as pure checks of replies, and when it tries a job again.

Each ``check_*`` function takes a reply as it came off the wire and returns what the router would do with every job, or
raises the :class:`RudderRefusal` that names the damage. Some replies that the real router tolerates are refused here
too, because a conversion is lost or mangled on the way; those say so.

Sources, all in https://github.com/rudderlabs/rudder-server:
``processor/internal/transformer/destination_transformer/destination_transformer.go``,
``router/transformer/transformer.go``, ``router/network.go``, ``router/worker.go``, ``router/handle.go`` and
``services/transformer/features_impl.go``.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from impact_plugin.errors import ImpactPluginError

State = Literal["transformed", "succeeded", "filtered", "aborted", "retry"]
"""Where a job stands; ``transformed`` means that it has a request and waits for delivery."""

API_VERSION = "2"
MISSING: msgspec.Raw = msgspec.Raw()

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_T = TypeVar("_T")


class RudderRefusal(ImpactPluginError):  # noqa: N818 - the family is named for what the router does, as its members are
    """A reply that rudder-server would not survive, not understand, or lose events over.

    ``job_ids`` are the jobs harmed; empty when the reply harms all of its request or none in particular.
    """

    def __init__(self, message: str, job_ids: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.job_ids = tuple(job_ids)


class RouterPanic(RudderRefusal):
    """The rudder-server process would crash, and with it every pipeline that it runs."""


class BatchAborted(RudderRefusal):
    """The router would give up at once on events that nobody looked at; they are lost."""


class EventDropped(RudderRefusal):
    """An input event has no output; the processor would forget it without a word."""


class InvalidReply(RudderRefusal):
    """The router cannot match or read the reply; it would mark all of its jobs 500 and try them again."""


class SilentLoss(RudderRefusal):
    """The router would report success, yet the conversion would never be sent, or sent without its status."""


class StalledForever(RudderRefusal):
    """The router would try this job again without end, for it never becomes deliverable."""


class CorruptedForm(RudderRefusal):
    """A FORM or query value is not what would arrive: Go prints numbers, objects and nulls in its own notation."""


class MissingContentType(RudderRefusal):
    """The request names no Content-Type that fits its body, and the router adds none."""


class RequestJob(msgspec.Struct, frozen=True):
    """One job of a request: its id, and the JSON bytes of its metadata and (in router mode) its destination."""

    job_id: int
    metadata: bytes
    destination: bytes = b""


class JobResult(msgspec.Struct, frozen=True):
    """What became of one job: the status it was given, the state that follows, and the request to deliver, if any.

    Jobs that were batched into one request share the very same ``request`` object.
    """

    job_id: int
    status: int
    state: State
    request: dict[str, Any] | None = None
    error: str = ""
    stat_tags: dict[str, str] = {}
    metadata: bytes = b""


class TransformerReply(msgspec.Struct, frozen=True):
    """A checked reply. With outcome ``retry`` the request is to be sent again as it was and ``jobs`` is empty."""

    jobs: tuple[JobResult, ...]
    outcome: Literal["jobs", "retry"] = "jobs"


class TransformerFeatures(msgspec.Struct, frozen=True):
    """What ``GET /features`` switches on: router transform per destination type, proxy v1, compacted bodies."""

    router_transform: frozenset[str]
    proxy_v1: bool
    compacted: bool


class _RequestObject(msgspec.Struct, rename="camel"):
    type: str | None = None
    endpoint: str | None = None
    endpoint_path: str | None = None
    method: str | None = None
    user_id: str | None = None
    headers: dict[str, str] | None = None
    params: dict[str, Any] | None = None
    body: dict[str, Any] | None = None
    files: dict[str, Any] | None = None


class _JobId(msgspec.Struct, rename={"job_id": "jobId"}):
    job_id: _Int64


class _ProcessorEntry(msgspec.Struct, rename="camel"):
    metadata: msgspec.Raw = MISSING
    output: msgspec.Raw = MISSING
    status_code: _Int64 | None = None
    error: str | None = None
    stat_tags: dict[str, str] | None = None
    validation_errors: list[dict[str, Any]] | None = None


class _RouterEntry(msgspec.Struct, rename="camel"):
    batched_request: msgspec.Raw = MISSING
    metadata: list[msgspec.Raw] | None = None
    destination: msgspec.Raw = MISSING
    batched: bool | None = None
    status_code: _Int64 | None = None
    error: str | None = None
    stat_tags: dict[str, str] | None = None
    auth_error_category: str | None = None


class _RouterReply(msgspec.Struct):
    output: list[_RouterEntry] | None = None


class _ProxyItem(msgspec.Struct, rename="camel"):
    metadata: msgspec.Raw = MISSING
    status_code: _Int64 | None = None
    error: str | None = None


class _ProxyV1Output(msgspec.Struct, rename="camel"):
    response: list[_ProxyItem] | None = None
    status: _Int64 | None = None
    message: str | None = None
    stat_tags: dict[str, str] | None = None
    auth_error_category: str | None = None


class _ProxyV1Reply(msgspec.Struct):
    output: _ProxyV1Output | None = None


class _ProxyV0Output(msgspec.Struct, rename="camel"):
    status: _Int64
    message: str | None = None
    stat_tags: dict[str, str] | None = None
    auth_error_category: str | None = None


class _ProxyV0Reply(msgspec.Struct):
    output: _ProxyV0Output


class _FeaturesBody(msgspec.Struct, rename="camel"):
    router_transform: dict[str, bool] = {}
    regulations: list[str] = []
    support_source_transform_v1: bool = msgspec.field(name="supportSourceTransformV1", default=False)
    upgraded_to_source_transform_v2: bool = msgspec.field(name="upgradedToSourceTransformV2", default=False)
    support_transformer_proxy_v1: bool = msgspec.field(name="supportTransformerProxyV1", default=False)
    compacted: bool = msgspec.field(name="supportDestTransformCompactedPayloadV1", default=False)


# --- when a job is tried again -------------------------------------------------------------------------------------


def next_state(
    status: int,
    *,
    attempt: int,
    first_failed_at: float | None,
    now: float,
    max_failed: int = 3,
    retry_window: float = 180 * 60,
) -> Literal["succeeded", "filtered", "aborted", "retry"]:
    """Say what the router does with a job after ``attempt`` tries, the last of which ended in ``status``.

    Times are in seconds of one clock; ``first_failed_at`` is the first failure of any kind, None when there was none.
    The window and the count bound server errors only: 408, 429, 599 (a request object the router could not decode)
    and anything below 200 go on without end. Source: ``router/worker.go`` and ``router/handle.go``.
    """
    if status == 298:
        return "filtered"
    if 200 <= status <= 299:
        return "succeeded"
    if status < 200 or status in {408, 429, 599}:
        return "retry"
    if status < 500:
        return "aborted"
    expired = first_failed_at is not None and now - first_failed_at > retry_window
    return "aborted" if expired and attempt >= max_failed else "retry"


def backoff(attempt: int, *, shortest: float = 10.0, longest: float = 300.0) -> float:
    """Return the seconds between the ``attempt``-th failed try of a job (counted from 1) and the next: 10, 20 .. 300.

    Raises ValueError when ``attempt`` is below 1. Source: ``router/handle.go``.
    """
    if attempt < 1:
        raise ValueError(f"attempts are counted from 1, not {attempt}")
    return min(shortest * 2.0 ** min(attempt - 1, 32), longest)


def back_pressure_wait(attempt: int) -> float:
    """Return the seconds before the processor answers the ``attempt``-th 503 with should-retry: 1, 2, 4 .. 30.

    The real wait is jittered by half either way. Source: ``internal/transformer-client/client.go``.
    """
    return backoff(attempt, shortest=1.0, longest=30.0)


def transport_wait(attempt: int) -> float:
    """Return the seconds after the ``attempt``-th fault of a processor request: 0.5, 0.75 .. 30; 31 faults are a panic.

    Source: ``processor/internal/transformer/destination_transformer/destination_transformer.go``.
    """
    return float(min(0.5 * 1.5 ** min(attempt - 1, 32), 30.0))


def processor_outcome(
    status: int, headers: Mapping[str, str]
) -> Literal["reply", "retry", "backoff_then_panic", "aborted"]:
    """Say what the HTTP status alone makes the processor do with a whole chunk.

    ``retry`` (503 with ``X-Rudder-Should-Retry: true``) is the one kind way to ask for time; ``aborted`` loses every
    event. Source: ``processor/internal/transformer/destination_transformer/destination_transformer.go``.
    """
    if status == 200:
        return "reply"
    if status == 503 and _header(headers, "X-Rudder-Should-Retry") == "true":
        return "retry"
    if status < 200 or status >= 500 or status in {408, 429}:
        return "backoff_then_panic"
    return "aborted"


# --- how Go prints a value -----------------------------------------------------------------------------------------


def go_sprint(value: Any) -> str:
    """Print a decoded JSON value as Go's ``fmt.Sprint`` does, where every number has become a float64.

    Hence 1000000 is ``1e+06``, an object ``map[a:1]`` and null ``<nil>``: what the router puts in a form.
    Source: https://pkg.go.dev/fmt and ``router/network.go``.
    """
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return _go_float(float(value))
        case dict():
            return "map[" + " ".join(f"{key}:{go_sprint(value[key])}" for key in sorted(value)) + "]"
        case list() | tuple():
            return "[" + " ".join(map(go_sprint, value)) + "]"
    return str(value)


def _go_float(number: float) -> str:
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    power = len(digits) + int(exponent) - 1
    if number == 0 or -4 <= power < 6:
        return f"{Decimal(repr(number)):f}".removesuffix(".0")
    fraction = "".join(map(str, digits[1:]))
    point = "." if fraction else ""
    return f"{'-' * sign}{digits[0]}{point}{fraction}e{power:+03d}"


# --- the request object --------------------------------------------------------------------------------------------

_TEXT_BODIES = {"JSON_ARRAY": "batch", "XML": "payload", "GZIP": "payload"}
_MEDIA_TYPES = {
    "FORM": ("application/x-www-form-urlencoded",),
    "JSON": ("application/json",),
    "JSON_ARRAY": ("application/json",),
    "XML": ("application/xml", "text/xml"),
}


def check_request_object(raw: bytes, job_ids: Sequence[int] = ()) -> dict[str, Any]:
    """Return a request object (``output`` or ``batchedRequest``) decoded, when the router would send it as meant.

    Raises StalledForever when the router cannot decode it, SilentLoss when it would not send it, RouterPanic for a
    body format that it does not know, InvalidReply for a body that is no object, BatchAborted for a text body without
    its text, CorruptedForm and MissingContentType for what would arrive spoilt.
    Source: ``router/network.go`` and ``processor/integrations/integrations.go``.
    """
    try:
        parsed = msgspec.json.decode(raw, type=_RequestObject)
    except msgspec.DecodeError as error:
        raise StalledForever(f"the router cannot decode the request object, status 599: {error}", job_ids) from error
    if parsed.type != "REST":
        raise SilentLoss(f"a request of type {parsed.type!r} is reported as sent but is not", job_ids)
    if parsed.files:
        raise SilentLoss("a request with files is reported as sent but is not", job_ids)
    kind, body = _only_body(parsed.body or {}, job_ids)
    _refuse_corrupted(kind, body, parsed.params or {}, job_ids)
    _refuse_untyped(kind, parsed.headers or {}, job_ids)
    decoded: dict[str, Any] = msgspec.json.decode(raw)
    return decoded


def filled_body(body: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the format and content of the one body that is not empty; ``("", {})`` when there is none."""
    return next(((kind, content) for kind, content in body.items() if content), ("", {}))


def _only_body(body: Mapping[str, Any], job_ids: Sequence[int]) -> tuple[str, dict[str, Any]]:
    for kind, content in body.items():
        if not isinstance(content, dict):
            raise InvalidReply(f"body.{kind} is not an object: 500 Invalid Router Payload", job_ids)
    filled = sorted(kind for kind, content in body.items() if content)
    if len(filled) != 1:
        # With two, Go's random map order picks the one that is sent; with none, an empty request counts as delivered.
        raise SilentLoss(f"exactly one body format must be filled, not {filled}", job_ids)
    kind, content = filled_body(body)
    if kind not in {"FORM", "JSON", *_TEXT_BODIES}:
        raise RouterPanic(f"body format {kind} is not supported", job_ids)
    if kind in _TEXT_BODIES and not isinstance(content.get(_TEXT_BODIES[kind]), str):
        raise BatchAborted(f"body.{kind}.{_TEXT_BODIES[kind]} is not a string: 400 without a try", job_ids)
    return kind, content


def _refuse_corrupted(kind: str, body: Mapping[str, Any], params: Mapping[str, Any], job_ids: Sequence[int]) -> None:
    if kind == "FORM":
        for key, value in body.items():
            # The router would print a small number well enough; a larger one a day later it would not.
            if not isinstance(value, str):
                raise CorruptedForm(f"FORM {key} would arrive as {go_sprint(value)!r}; write a string", job_ids)
    for key, value in params.items():
        if value is None or isinstance(value, list) or (_is_number(value) and "e" in go_sprint(value)):
            raise CorruptedForm(f"params {key} would arrive as {go_sprint(value)!r}; write a string", job_ids)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse_untyped(kind: str, headers: Mapping[str, str], job_ids: Sequence[int]) -> None:
    media_type = _header(headers, "Content-Type").partition(";")[0].strip().lower()
    wanted = _MEDIA_TYPES.get(kind, (media_type,))
    if not media_type or media_type not in wanted:
        raise MissingContentType(f"a {kind} body needs a Content-Type of its own, not {media_type!r}", job_ids)


# --- replies -------------------------------------------------------------------------------------------------------


def check_features(status: int, body: bytes) -> TransformerFeatures:
    """Return what ``GET /features`` offers.

    Raises RouterPanic when neither source flag is true, and InvalidReply for any status but 200 or a body of other
    types: the real router then falls back to its built-in set, and goes without compaction until it is restarted.
    Source: ``services/transformer/features_impl.go``.
    """
    if status != 200:
        raise InvalidReply(f"/features answered {status}: the router would boot with its built-in set")
    parsed = _decode(_FeaturesBody, body, InvalidReply)
    if not (parsed.upgraded_to_source_transform_v2 or parsed.support_source_transform_v1):
        raise RouterPanic("neither upgradedToSourceTransformV2 nor supportSourceTransformV1 is true")
    enabled = frozenset(name for name, on in parsed.router_transform.items() if on)
    return TransformerFeatures(enabled, proxy_v1=parsed.support_transformer_proxy_v1, compacted=parsed.compacted)


def check_processor_reply(
    request_jobs: Sequence[RequestJob], status: int, headers: Mapping[str, str], body: bytes
) -> TransformerReply:
    """Return what the processor does with each job of one ``POST /v0/destinations/<type>``, in input order.

    The outcome is ``retry`` for a 503 that asks for time. Raises BatchAborted and RouterPanic by HTTP status;
    RouterPanic for a wrong ``apiVersion`` or an envelope that does not decode; EventDropped for a job left out;
    InvalidReply for unknown, repeated or altered metadata; StalledForever for a missing status (here the event would
    be aborted under code 0); and whatever :func:`check_request_object` raises. Source:
    ``processor/internal/transformer/destination_transformer/destination_transformer.go``.
    """
    outcome = processor_outcome(status, headers)
    if outcome == "retry":
        return TransformerReply((), outcome)
    _refuse_processor_status(outcome, status, request_jobs)
    _refuse_version(headers, RouterPanic)
    ledger = _Ledger(request_jobs, RouterPanic)
    for entry in _decode(list[_ProcessorEntry], body, RouterPanic):
        _settle_event(ledger, entry)
    return TransformerReply(ledger.close(EventDropped))


def check_router_reply(
    request_jobs: Sequence[RequestJob], status: int, headers: Mapping[str, str], body: bytes
) -> TransformerReply:
    """Return what the router does with each job of one ``POST /routerTransform``, in input order.

    A 503 is the answer of a plugin that is starting or full: each job gets 500 and is tried again. Raises BatchAborted
    for 404; RouterPanic for a wrong ``apiVersion``; InvalidReply for any other status, an envelope that does not
    decode, a job that is not in exactly one entry, or a ``metadata`` or ``destination`` that is not the one sent;
    StalledForever and SilentLoss for requests that are missing, null or arrays; and whatever
    :func:`check_request_object` raises. Source: ``router/transformer/transformer.go``.
    """
    if status == 404:
        raise BatchAborted("404 on /routerTransform aborts every job of the batch", _ids(request_jobs))
    if status == 503:
        return _all_failed(request_jobs, body)
    _refuse_other_status(status, request_jobs)
    _refuse_version(headers, RouterPanic)
    ledger = _Ledger(request_jobs, InvalidReply)
    for entry in _decode(_RouterReply, body, InvalidReply).output or []:
        _settle_entry(ledger, entry)
    return TransformerReply(ledger.close(InvalidReply))


def check_proxy_v1_reply(
    request_jobs: Sequence[RequestJob], status: int, headers: Mapping[str, str], body: bytes
) -> TransformerReply:
    """Return the delivery result of each job of one ``POST /v1/destinations/<type>/proxy``, in input order.

    A 503 gives every job 500. Raises InvalidReply for any other status than 200 (the real router ignores it, 404
    excepted), a wrong ``apiVersion``, an envelope that does not decode, or a job that is not in exactly one element;
    StalledForever for a status below 200. ``dontBatch`` may differ from the metadata sent, for the router stores it.
    Source: ``router/transformer/transformer.go`` and ``router/transformer/transformer_proxy_adapter.go``.
    """
    if status == 503:
        return _all_failed(request_jobs, body)
    _refuse_other_status(status, request_jobs)
    _refuse_version(headers, InvalidReply)
    output = _decode(_ProxyV1Reply, body, InvalidReply).output
    if output is None:
        raise InvalidReply("output is missing or null", _ids(request_jobs))
    ledger = _Ledger(request_jobs, InvalidReply)
    for item in output.response or []:
        job = ledger.tick(item.metadata, free_key="dontBatch")
        code = _plain_status(item.status_code, [job.job_id])
        ledger.put(_result(job, code, first_state(code), item))
    return TransformerReply(ledger.close(InvalidReply))


def check_proxy_v0_reply(
    request_jobs: Sequence[RequestJob],
    status: int,
    headers: Mapping[str, str],  # noqa: ARG001 - the router reads none on this path; the four checks are called alike
    body: bytes,
) -> TransformerReply:
    """Return the delivery result of each job of one ``POST /v0/destinations/<type>/proxy``: the HTTP status, for all.

    Raises InvalidReply when the body is no ``{"output": {"status": integer, ..}}``, or when its status is not the one
    of the reply (any 2xx may be 200, and 404 must be turned to 400, for the router reads 404 as "no such route").
    Source: ``router/transformer/transformer_proxy_adapter.go``.
    """
    if status == 503:
        return _all_failed(request_jobs, body, status)
    if status == 404:
        raise InvalidReply("404 on the proxy path means that there is no proxy", _ids(request_jobs))
    output = _decode(_ProxyV0Reply, body, InvalidReply).output
    code = _plain_status(output.status, _ids(request_jobs))
    expected = 200 if 200 <= code <= 299 and status == 200 else 400 if code == 404 else code
    if status != expected:
        raise InvalidReply(f"the reply is {status} but its output.status {code}", _ids(request_jobs))
    error = "" if status < 300 else output.message or ""
    jobs = (
        JobResult(job.job_id, status, first_state(status), None, error, output.stat_tags or {}, job.metadata)
        for job in request_jobs
    )
    return TransformerReply(tuple(jobs))


def first_state(status: int) -> Literal["succeeded", "filtered", "aborted", "retry"]:
    """Return the state of a job whose very first try ended in ``status``."""
    return next_state(status, attempt=1, first_failed_at=None, now=0.0)


class _Ledger:
    """The jobs of one request, ticked off as the reply names them."""

    def __init__(self, jobs: Sequence[RequestJob], undecodable: type[RudderRefusal]) -> None:
        self._jobs = {job.job_id: job for job in jobs}
        self._named: set[int] = set()
        self._results: dict[int, JobResult] = {}
        self._undecodable = undecodable

    def tick(self, metadata: msgspec.Raw, free_key: str = "") -> RequestJob:
        """Return the job that this echoed metadata names, the first time it is named, if it was not altered."""
        job_id = _decode(_JobId, bytes(metadata), self._undecodable).job_id
        job = self._jobs.get(job_id)
        if job is None or job_id in self._named:
            how = "was not in the request" if job is None else "is in two entries"
            raise InvalidReply(f"job {job_id} {how}", [job_id])
        if bytes(metadata) != job.metadata and not (free_key and _same_but(free_key, bytes(metadata), job.metadata)):
            raise InvalidReply(f"the metadata of job {job_id} was not echoed byte for byte", [job_id])
        self._named.add(job_id)
        return job

    def put(self, result: JobResult) -> None:
        """Record the result of a job that was ticked off."""
        self._results[result.job_id] = result

    def close(self, missing: type[RudderRefusal]) -> tuple[JobResult, ...]:
        """Return the results in input order; raise ``missing`` when a job was never named."""
        left_out = [job_id for job_id in self._jobs if job_id not in self._results]
        if left_out:
            raise missing(f"jobs {left_out} have no output", left_out)
        return tuple(self._results[job_id] for job_id in self._jobs)


def _settle_event(ledger: _Ledger, entry: _ProcessorEntry) -> None:
    output = bytes(entry.output)
    if output not in {b"", b"null"} and not output.startswith(b"{"):
        raise RouterPanic("an output is not an object; the whole reply is undecodable")
    job = ledger.tick(entry.metadata)
    status = _plain_status(entry.status_code, [job.job_id])
    if status != 200:
        # Every status but 200 and 298 aborts here, 429 and 500 as well: nothing is tried again event by event.
        ledger.put(_result(job, status, "filtered" if status == 298 else "aborted", entry))
        return
    if output in {b"", b"null"}:
        raise SilentLoss("an event with status 200 has no output; the router reports it as sent", [job.job_id])
    request = check_request_object(output, [job.job_id])
    ledger.put(_result(job, status, "transformed", entry, request))


def _settle_entry(ledger: _Ledger, entry: _RouterEntry) -> None:
    if not entry.metadata:
        raise InvalidReply("an entry has no metadata")
    jobs = [ledger.tick(metadata) for metadata in entry.metadata]
    job_ids = _ids(jobs)
    for job in jobs:
        _refuse_other_destination(job, bytes(entry.destination))
    status = _plain_status(entry.status_code, job_ids)
    request = _batched_request(bytes(entry.batched_request), job_ids) if status == 200 else None
    state: State = first_state(status) if request is None else "transformed"
    for job in jobs:
        ledger.put(_result(job, status, state, entry, request))


def _batched_request(raw: bytes, job_ids: Sequence[int]) -> dict[str, Any]:
    if not raw:
        raise StalledForever("an entry with status 200 has no batchedRequest, status 599", job_ids)
    if raw == b"null":
        raise SilentLoss("batchedRequest is null; the router reports it as sent", job_ids)
    if raw.startswith(b"["):
        # The real router takes arrays, but through the proxy the failures of all but the last are forgotten.
        raise SilentLoss("batchedRequest is an array; a failure before its last element is forgotten", job_ids)
    return check_request_object(raw, job_ids)


def _refuse_other_destination(job: RequestJob, echoed: bytes) -> None:
    # The real router goes on without it, but then throttles under no key and hands the proxy an empty configuration.
    if job.destination and (not echoed or msgspec.json.decode(echoed) != msgspec.json.decode(job.destination)):
        raise InvalidReply(f"the destination of job {job.job_id} was not echoed", [job.job_id])


def _refuse_processor_status(outcome: str, status: int, jobs: Sequence[RequestJob]) -> None:
    if outcome == "aborted":
        raise BatchAborted(f"HTTP {status} aborts every event of the chunk", _ids(jobs))
    if outcome == "backoff_then_panic":
        raise RouterPanic(f"HTTP {status}, and still so after every retry, is a panic", _ids(jobs))


def _refuse_other_status(status: int, jobs: Sequence[RequestJob]) -> None:
    if status != 200:
        raise InvalidReply(f"HTTP {status} gives every job 500", _ids(jobs))


def _refuse_version(headers: Mapping[str, str], refusal: type[RudderRefusal]) -> None:
    version = _header(headers, "apiVersion")
    if version != API_VERSION:
        raise refusal(f"the header apiVersion must be {API_VERSION!r}, not {version!r}")


def _all_failed(jobs: Sequence[RequestJob], body: bytes, status: int = 500) -> TransformerReply:
    error = body.decode(errors="replace")
    return TransformerReply(
        tuple(JobResult(job.job_id, status, "retry", error=error, metadata=job.metadata) for job in jobs)
    )


def _result(
    job: RequestJob,
    status: int,
    state: State,
    entry: _ProcessorEntry | _RouterEntry | _ProxyItem,
    request: dict[str, Any] | None = None,
) -> JobResult:
    tags = {} if isinstance(entry, _ProxyItem) else entry.stat_tags or {}
    return JobResult(job.job_id, status, state, request, entry.error or "", tags, job.metadata)


def _plain_status(status: int | None, job_ids: Sequence[int]) -> int:
    # The router takes a 0 from /routerTransform for "deliver"; nobody who means 200 writes it.
    if status is None or status < 200:
        raise StalledForever(f"statusCode {status or 0} is tried again without end", job_ids)
    return status


def _same_but(key: str, left: bytes, right: bytes) -> bool:
    pair = [msgspec.json.decode(raw, type=dict[str, Any]) for raw in (left, right)]
    return isinstance(pair[0].pop(key, None), bool) and pair[1].pop(key, None) is not None and pair[0] == pair[1]


def _ids(jobs: Sequence[RequestJob]) -> list[int]:
    return [job.job_id for job in jobs]


def _header(headers: Mapping[str, str], name: str) -> str:
    return next((value for key, value in headers.items() if key.lower() == name.lower()), "")


def _decode(shape: type[_T], body: bytes, refusal: type[RudderRefusal]) -> _T:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.DecodeError as error:
        raise refusal(f"the reply does not decode: {error}") from error
