"""What rudder-server does with a transformer's reply.

Each ``check_*`` function takes a reply as it was received and returns what the router would do with every job, or
raises the :class:`~impact_plugin.rudder.refusals.RudderRefusal` for the harm that it would do. Some replies that the
real router tolerates are refused as well, because they lose or mangle a conversion; docstrings and comments say so.

Sources, all in https://github.com/rudderlabs/rudder-server:
``processor/internal/transformer/destination_transformer/destination_transformer.go``,
``router/transformer/transformer.go`` and ``router/transformer/transformer_proxy_adapter.go``.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from multidict import CIMultiDict

from impact_plugin.rudder.jobs import JobResult, RequestJob, State
from impact_plugin.rudder.refusals import (
    BatchAborted,
    EventDropped,
    InvalidReply,
    RouterPanic,
    RudderRefusal,
    SilentLoss,
    StalledForever,
)
from impact_plugin.rudder.request_objects import check_request_object
from impact_plugin.rudder.retries import first_state, processor_outcome

API_VERSION = "2"

MISSING: msgspec.Raw = msgspec.Raw()

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

_T = TypeVar("_T")


class TransformerReply(msgspec.Struct, frozen=True):
    """A checked reply. With outcome ``retry`` the router sends the same request again, and ``jobs`` is empty."""

    jobs: tuple[JobResult, ...]
    outcome: Literal["jobs", "retry"] = "jobs"


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


def check_processor_reply(
    request_jobs: Sequence[RequestJob], status: int, headers: Mapping[str, str], body: bytes
) -> TransformerReply:
    """Return what the processor does with each job of a ``POST /v0/destinations/<type>``, in input order.

    The outcome is ``retry`` for a 503 that asks for time. Raises BatchAborted and RouterPanic by HTTP status;
    RouterPanic for a wrong ``apiVersion`` or an envelope that does not decode; EventDropped for a job that is left
    out; InvalidReply for unknown, repeated or altered metadata; StalledForever for a missing status (the processor
    would abort the event with code 0); and whatever :func:`check_request_object` raises.
    """
    outcome = processor_outcome(status, headers)
    if outcome == "retry":
        return TransformerReply((), outcome)
    _refuse_processor_status(outcome, status, request_jobs)
    _refuse_version(headers, RouterPanic)
    checklist = _Checklist(request_jobs, RouterPanic)
    for entry in _decode(list[_ProcessorEntry], body, RouterPanic):
        _settle_event(checklist, entry)
    return TransformerReply(checklist.close(EventDropped))


def check_router_reply(
    request_jobs: Sequence[RequestJob], status: int, headers: Mapping[str, str], body: bytes
) -> TransformerReply:
    """Return what the router does with each job of a ``POST /routerTransform``, in input order.

    After a 503, by which a plugin asks for time, each job gets a 500 and is retried. Raises BatchAborted for a 404;
    RouterPanic for a wrong ``apiVersion``; InvalidReply for any other status, an envelope that does not decode, a job
    that is not in exactly one entry, or a ``metadata`` or ``destination`` that is not the one sent; StalledForever and
    SilentLoss for requests that are missing, null or arrays; and whatever :func:`check_request_object` raises.
    """
    if status == 404:
        raise BatchAborted("404 on /routerTransform aborts every job of the batch", _ids(request_jobs))
    if status == 503:
        return _all_failed(request_jobs, body)
    _refuse_other_status(status, request_jobs)
    _refuse_version(headers, RouterPanic)
    checklist = _Checklist(request_jobs, InvalidReply)
    for entry in _decode(_RouterReply, body, InvalidReply).output or []:
        _settle_entry(checklist, entry)
    return TransformerReply(checklist.close(InvalidReply))


def check_proxy_v1_reply(
    request_jobs: Sequence[RequestJob], status: int, headers: Mapping[str, str], body: bytes
) -> TransformerReply:
    """Return the delivery result of each job of a ``POST /v1/destinations/<type>/proxy``, in input order.

    After a 503 each job gets a 500. Raises InvalidReply for any other status but 200 (the real router ignores it,
    unless it is a 404), a wrong ``apiVersion``, an envelope that does not decode, or a job that is not in exactly one
    element; StalledForever for a status below 200. ``dontBatch`` may differ from the metadata sent, because the router
    stores it.
    """
    if status == 503:
        return _all_failed(request_jobs, body)
    _refuse_other_status(status, request_jobs)
    _refuse_version(headers, InvalidReply)
    output = _decode(_ProxyV1Reply, body, InvalidReply).output
    if output is None:
        raise InvalidReply("output is missing or null", _ids(request_jobs))
    checklist = _Checklist(request_jobs, InvalidReply)
    for item in output.response or []:
        job = checklist.tick(item.metadata, free_key="dontBatch")
        code = _plain_status(item.status_code, [job.job_id])
        checklist.put(_result(job, code, first_state(code), item))
    return TransformerReply(checklist.close(InvalidReply))


def check_proxy_v0_reply(
    request_jobs: Sequence[RequestJob],
    status: int,
    headers: Mapping[str, str],  # noqa: ARG001 - the router ignores them on this path; the four checks have one signature
    body: bytes,
) -> TransformerReply:
    """Return the delivery result of each job of a ``POST /v0/destinations/<type>/proxy``: the HTTP status, for all.

    Raises InvalidReply if the body is not ``{"output": {"status": integer, ..}}``, or if its status is not that of the
    reply (any 2xx may become 200, and 404 must become 400, because to the router 404 means "no such route").
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


class _Checklist:
    """The jobs of a request, ticked off as the reply names them."""

    def __init__(self, jobs: Sequence[RequestJob], undecodable: type[RudderRefusal]) -> None:
        self._jobs = {job.job_id: job for job in jobs}
        self._named: set[int] = set()
        self._results: dict[int, JobResult] = {}
        self._undecodable = undecodable

    def tick(self, metadata: msgspec.Raw, free_key: str = "") -> RequestJob:
        """Return the job that echoed metadata names; it must be unaltered, and named for the first time."""
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
        """Store the result of a job that was ticked off."""
        self._results[result.job_id] = result

    def close(self, missing: type[RudderRefusal]) -> tuple[JobResult, ...]:
        """Return the results in input order; raises ``missing`` if a job was not named."""
        left_out = [job_id for job_id in self._jobs if job_id not in self._results]
        if left_out:
            raise missing(f"jobs {left_out} have no output", left_out)
        return tuple(self._results[job_id] for job_id in self._jobs)


def _settle_event(checklist: _Checklist, entry: _ProcessorEntry) -> None:
    output = bytes(entry.output)
    if output not in {b"", b"null"} and not output.startswith(b"{"):
        raise RouterPanic("an output is not an object; the whole reply is undecodable")
    job = checklist.tick(entry.metadata)
    status = _plain_status(entry.status_code, [job.job_id])
    if status != 200:
        # The processor aborts for every status but 200 and 298, even 429 and 500: it never retries single events.
        checklist.put(_result(job, status, "filtered" if status == 298 else "aborted", entry))
        return
    if output in {b"", b"null"}:
        raise SilentLoss("an event with status 200 has no output; the router reports it as sent", [job.job_id])
    request = check_request_object(output, [job.job_id])
    checklist.put(_result(job, status, "transformed", entry, request))


def _settle_entry(checklist: _Checklist, entry: _RouterEntry) -> None:
    if not entry.metadata:
        raise InvalidReply("an entry has no metadata")
    jobs = [checklist.tick(metadata) for metadata in entry.metadata]
    job_ids = _ids(jobs)
    for job in jobs:
        _refuse_other_destination(job, bytes(entry.destination))
    status = _plain_status(entry.status_code, job_ids)
    request = _batched_request(bytes(entry.batched_request), job_ids) if status == 200 else None
    state: State = first_state(status) if request is None else "transformed"
    for job in jobs:
        checklist.put(_result(job, status, state, entry, request))


def _batched_request(raw: bytes, job_ids: Sequence[int]) -> dict[str, Any]:
    if not raw:
        raise StalledForever("an entry with status 200 has no batchedRequest, status 599", job_ids)
    if raw == b"null":
        raise SilentLoss("batchedRequest is null; the router reports it as sent", job_ids)
    if raw.startswith(b"["):
        # The real router accepts arrays, but with the proxy it forgets all failures but the last.
        raise SilentLoss("batchedRequest is an array; a failure before its last element is forgotten", job_ids)
    return check_request_object(raw, job_ids)


def _refuse_other_destination(job: RequestJob, echoed: bytes) -> None:
    # The real router continues without it, but throttles under no key and gives the proxy an empty configuration.
    if job.destination and (not echoed or msgspec.json.decode(echoed) != msgspec.json.decode(job.destination)):
        raise InvalidReply(f"the destination of job {job.job_id} was not echoed", [job.job_id])


def _refuse_processor_status(outcome: str, status: int, jobs: Sequence[RequestJob]) -> None:
    if outcome == "aborted":
        raise BatchAborted(f"HTTP {status} aborts every event of the chunk", _ids(jobs))
    if outcome == "backoff_then_panic":
        raise RouterPanic(f"HTTP {status}, if it stays after every retry, is a panic", _ids(jobs))


def _refuse_other_status(status: int, jobs: Sequence[RequestJob]) -> None:
    if status != 200:
        raise InvalidReply(f"HTTP {status} gives every job 500", _ids(jobs))


def _refuse_version(headers: Mapping[str, str], refusal: type[RudderRefusal]) -> None:
    version = CIMultiDict(headers).get("apiVersion", "")
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
    # For the router a 0 from /routerTransform means "deliver", but a transformer that means it writes 200.
    if status is None or status < 200:
        raise StalledForever(f"statusCode {status or 0} is retried forever", job_ids)
    return status


def _same_but(key: str, left: bytes, right: bytes) -> bool:
    pair = [msgspec.json.decode(raw, type=dict[str, Any]) for raw in (left, right)]
    return isinstance(pair[0].pop(key, None), bool) and pair[1].pop(key, None) is not None and pair[0] == pair[1]


def _ids(jobs: Sequence[RequestJob]) -> list[int]:
    return [job.job_id for job in jobs]


def _decode(shape: type[_T], body: bytes, refusal: type[RudderRefusal]) -> _T:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.DecodeError as error:
        raise refusal(f"the reply does not decode: {error}") from error
