"""What the router does with replies: which are accepted, which are refused, and under which name."""

import json
from typing import Any

import pytest

from impact_plugin.rudder.jobs import RequestJob
from impact_plugin.rudder.refusals import (
    BatchAborted,
    CorruptedForm,
    EventDropped,
    InvalidReply,
    MissingContentType,
    RouterPanic,
    RudderRefusal,
    SilentLoss,
    StalledForever,
)
from impact_plugin.rudder.replies import (
    TransformerReply,
    check_processor_reply,
    check_proxy_v0_reply,
    check_proxy_v1_reply,
    check_router_reply,
)
from tests.plugin.rudder.request_builders import form, request_object

VERSION = {"apiVersion": "2"}
FIRST = RequestJob(1, b'{"jobId":1,"rudderId":"\\u003c\\u003e","dontBatch":false}')
SECOND = RequestJob(2, b'{"jobId":2,"rudderId":"\\u003c\\u003e","dontBatch":false}')


def event_entry(job: RequestJob, **changes: Any) -> bytes:
    """Return one element of a processor reply, metadata as raw bytes."""
    members = {"output": request_object(), "statusCode": 200, "error": "", "statTags": {}} | changes
    return b'{"metadata":' + job.metadata + b"," + json.dumps(members).encode()[1:]


def router_entry(*jobs: RequestJob, destination: bytes = b"{}", **changes: Any) -> bytes:
    """Return one entry of a router reply, metadata and destination as raw bytes."""
    members = {"batchedRequest": request_object(), "batched": False, "statusCode": 200, "error": ""} | changes
    metadata = b",".join(job.metadata for job in jobs)
    return b'{"metadata":[' + metadata + b'],"destination":' + destination + b"," + json.dumps(members).encode()[1:]


def proxy_item(job: RequestJob, **changes: Any) -> bytes:
    """Return one element of a proxy v1 response, metadata as raw bytes."""
    return b'{"metadata":' + job.metadata + b"," + json.dumps({"statusCode": 200, "error": ""} | changes).encode()[1:]


def processor(
    *entries: bytes, jobs: tuple[RequestJob, ...] = (FIRST,), headers: dict[str, str] = VERSION
) -> TransformerReply:
    """Check a processor reply of these elements."""
    return check_processor_reply(jobs, 200, headers, b"[" + b",".join(entries) + b"]")


def router(
    *entries: bytes, jobs: tuple[RequestJob, ...] = (FIRST,), headers: dict[str, str] = VERSION
) -> TransformerReply:
    """Check a router reply of these entries."""
    return check_router_reply(jobs, 200, headers, b'{"output":[' + b",".join(entries) + b"]}")


def proxy(
    *items: bytes, jobs: tuple[RequestJob, ...] = (FIRST,), headers: dict[str, str] = VERSION
) -> TransformerReply:
    """Check a proxy v1 reply of these elements."""
    body = b'{"output":{"status":200,"message":"","response":[' + b",".join(items) + b"]}}"
    return check_proxy_v1_reply(jobs, 200, headers, body)


# --- the processor


def test_processor_reply_is_read_in_input_order() -> None:
    """Entries may come in any order; 200 has a request, 298 is filtered and everything else aborted, even a 429."""
    third = RequestJob(3, b'{"jobId":3}')
    late = event_entry(third, statusCode=429, output=None, error="slow down", statTags={"errorType": "throttled"})
    reply = processor(
        late,
        event_entry(SECOND, statusCode=298, output=None, error=None, statTags=None),
        event_entry(FIRST, later=1),
        jobs=(FIRST, SECOND, third),
    )
    assert [(job.job_id, job.status, job.state) for job in reply.jobs] == [
        (1, 200, "transformed"),
        (2, 298, "filtered"),
        (3, 429, "aborted"),
    ]
    assert [request_object(), None, None] == [job.request for job in reply.jobs]
    assert (reply.jobs[2].error, reply.jobs[2].stat_tags) == ("slow down", {"errorType": "throttled"})


@pytest.mark.parametrize(
    ("entry", "refusal"),
    [
        (event_entry(FIRST, statusCode=200.0), RouterPanic),
        (event_entry(FIRST, statusCode="200"), RouterPanic),
        (event_entry(FIRST, statusCode=True), RouterPanic),
        (event_entry(FIRST, error={"message": "x"}), RouterPanic),
        (event_entry(FIRST, statTags={"status": 400}), RouterPanic),
        (event_entry(FIRST, output=[request_object()]), RouterPanic),
        (event_entry(FIRST, output="x"), RouterPanic),
        (event_entry(FIRST, validationErrors="x"), RouterPanic),
        (event_entry(RequestJob(1, b'{"jobId":"1"}')), RouterPanic),
        (event_entry(RequestJob(1, b'{"jobId":1.0}')), RouterPanic),
        (event_entry(RequestJob(1, b"null")), RouterPanic),
        (event_entry(SECOND), InvalidReply),
        (event_entry(RequestJob(1, FIRST.metadata.replace(b"\\u003c", b"<"))), InvalidReply),
        (event_entry(RequestJob(1, FIRST.metadata.replace(b",", b", "))), InvalidReply),
        (event_entry(FIRST, statusCode=0), StalledForever),
        (event_entry(FIRST, statusCode=None), StalledForever),
        (event_entry(FIRST, output=None), SilentLoss),
        (event_entry(FIRST, output=request_object(userId=7)), StalledForever),
        (event_entry(FIRST, output=form(Price=1.5)), CorruptedForm),
    ],
)
def test_processor_refuses_a_bad_element(entry: bytes, refusal: type[RudderRefusal]) -> None:
    """An element that Go cannot decode is a panic; a false echo or a lost request is refused under its own name."""
    with pytest.raises(refusal):
        processor(entry)


def test_processor_refuses_to_lose_an_event() -> None:
    """The real processor forgets an event without output; here it is named."""
    with pytest.raises(EventDropped) as caught:
        processor(event_entry(FIRST), jobs=(FIRST, SECOND))
    assert caught.value.job_ids == (2,)


def test_processor_refuses_two_outputs_of_one_event() -> None:
    """An event that is both install and action is one conversion, so its job appears once."""
    with pytest.raises(InvalidReply, match="two entries"):
        processor(event_entry(FIRST), event_entry(FIRST))


@pytest.mark.parametrize("headers", [{}, {"apiVersion": "1"}, {"apiVersion": "2.0"}, {"apiVersion": " 2"}])
def test_wrong_version_crashes_both_transforms(headers: dict[str, str]) -> None:
    """A 200 without the header ``apiVersion: 2`` is a panic in processor and router alike."""
    with pytest.raises(RouterPanic, match="apiVersion"):
        processor(event_entry(FIRST), headers=headers)
    with pytest.raises(RouterPanic, match="apiVersion"):
        router(router_entry(FIRST), headers=headers)


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b'{"output":[]}', b"null"])
def test_processor_body_must_be_an_array(body: bytes) -> None:
    """A 200 whose body is no array of results is a panic."""
    with pytest.raises(RouterPanic):
        check_processor_reply([FIRST], 200, VERSION, body)


@pytest.mark.parametrize(
    ("status", "refusal"), [(400, BatchAborted), (404, BatchAborted), (413, BatchAborted), (500, RouterPanic)]
)
def test_processor_status_harms_the_whole_chunk(status: int, refusal: type[RudderRefusal]) -> None:
    """A 4xx loses every event of the chunk, and a 5xx that stays is a panic."""
    with pytest.raises(refusal) as caught:
        check_processor_reply([FIRST, SECOND], status, VERSION, b"")
    assert caught.value.job_ids == (1, 2)


def test_back_pressure_is_no_refusal() -> None:
    """A 503 with should-retry asks to send the chunk again."""
    assert TransformerReply((), "retry") == check_processor_reply([FIRST], 503, {"X-Rudder-Should-Retry": "true"}, b"")


# --- the router


def test_router_reply_is_read_in_input_order() -> None:
    """A batched request is shared by its jobs; a status that is not 200 needs no request."""
    third = RequestJob(3, b'{"jobId":3}')
    failed = router_entry(third, statusCode=429, batchedRequest=None, error="later", statTags={"a": "b"})
    reply = router(failed, router_entry(SECOND, FIRST), jobs=(FIRST, SECOND, third))
    assert [(job.job_id, job.state) for job in reply.jobs] == [(1, "transformed"), (2, "transformed"), (3, "retry")]
    assert reply.jobs[0].request is reply.jobs[1].request
    assert (reply.jobs[2].error, reply.jobs[2].stat_tags) == ("later", {"a": "b"})


@pytest.mark.parametrize(
    ("entries", "refusal"),
    [
        ([router_entry(FIRST, batchedRequest=[request_object()])], SilentLoss),
        ([router_entry(FIRST, batchedRequest=None)], SilentLoss),
        ([router_entry(FIRST).replace(b'"batchedRequest"', b'"request"')], StalledForever),
        ([router_entry(FIRST, batchedRequest=request_object(headers={"a": 1}))], StalledForever),
        ([router_entry(FIRST, statusCode=0)], StalledForever),
        ([router_entry(FIRST, statusCode=102)], StalledForever),
        ([router_entry(FIRST, statusCode=200.0)], InvalidReply),
        ([router_entry(FIRST, error=[])], InvalidReply),
        ([router_entry(FIRST, statTags={"a": 1})], InvalidReply),
        ([router_entry(FIRST, authErrorCategory=1)], InvalidReply),
        ([router_entry(FIRST), router_entry(FIRST)], InvalidReply),
        ([router_entry(FIRST), router_entry()], InvalidReply),
        ([router_entry(SECOND)], InvalidReply),
        ([], InvalidReply),
        ([router_entry(RequestJob(1, b'{"jobId":1}'))], InvalidReply),
        ([router_entry(RequestJob(1, b'{"jobId":"1"}'))], InvalidReply),
        ([router_entry(FIRST, batchedRequest=form(Price=1000000))], CorruptedForm),
        ([router_entry(FIRST, batchedRequest=request_object(headers={}))], MissingContentType),
    ],
)
def test_router_refuses_a_bad_entry(entries: list[bytes], refusal: type[RudderRefusal]) -> None:
    """Each job is in exactly one entry, with its metadata untouched and a single request that the router can send."""
    with pytest.raises(refusal):
        router(*entries)


def test_router_wants_its_destination_back() -> None:
    """The destination is echoed by value; without it delivery throttling and the proxy's configuration are gone."""
    job = RequestJob(1, FIRST.metadata, b'{"ID":"d","Config":{"a":1}}')
    assert (
        router(router_entry(job, destination=b'{"Config":{"a":1},"ID":"d"}'), jobs=(job,)).jobs[0].state
        == "transformed"
    )
    with pytest.raises(InvalidReply, match="destination"):
        router(router_entry(job), jobs=(job,))


@pytest.mark.parametrize(("status", "refusal"), [(404, BatchAborted), (400, InvalidReply), (500, InvalidReply)])
def test_router_status_harms_the_whole_batch(status: int, refusal: type[RudderRefusal]) -> None:
    """A 404 aborts every job; any other status makes all of them 500, which only a 503 may mean."""
    with pytest.raises(refusal):
        check_router_reply([FIRST], status, VERSION, b"")


@pytest.mark.parametrize("check", [check_router_reply, check_proxy_v1_reply])
def test_starting_plugin_makes_router_jobs_wait(check: Any) -> None:
    """A 503 on the router's paths gives each job 500, to be tried again."""
    reply = check([FIRST, SECOND], 503, {}, b"starting")
    assert [(job.job_id, job.status, job.state, job.error) for job in reply.jobs] == [
        (1, 500, "retry", "starting"),
        (2, 500, "retry", "starting"),
    ]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"output":{}}', b"{}"])
def test_router_body_must_hold_entries(body: bytes) -> None:
    """A 200 without a list of entries makes every job 500."""
    with pytest.raises(InvalidReply):
        check_router_reply([FIRST], 200, VERSION, body)


# --- the delivery proxy


def test_proxy_v1_reply_is_read_per_job() -> None:
    """Each job takes the status and the text of its own element; dontBatch may come back changed."""
    changed = RequestJob(2, SECOND.metadata.replace(b"false", b"true"))
    reply = proxy(proxy_item(changed, statusCode=400, error="bad"), proxy_item(FIRST), jobs=(FIRST, SECOND))
    assert [(job.job_id, job.status, job.state, job.error) for job in reply.jobs] == [
        (1, 200, "succeeded", ""),
        (2, 400, "aborted", "bad"),
    ]


@pytest.mark.parametrize(
    ("items", "refusal"),
    [
        ([proxy_item(FIRST, statusCode=0)], StalledForever),
        ([proxy_item(FIRST, statusCode=None)], StalledForever),
        ([proxy_item(FIRST, statusCode="200")], InvalidReply),
        ([proxy_item(FIRST, error={"message": "x"})], InvalidReply),
        ([proxy_item(SECOND)], InvalidReply),
        ([proxy_item(FIRST), proxy_item(FIRST)], InvalidReply),
        ([proxy_item(RequestJob(1, b'{"jobId":1,"dontBatch":false}'))], InvalidReply),
        ([proxy_item(RequestJob(1, FIRST.metadata.replace(b"false", b"1")))], InvalidReply),
        ([], InvalidReply),
    ],
)
def test_proxy_v1_refuses_a_bad_element(items: list[bytes], refusal: type[RudderRefusal]) -> None:
    """A job without a plain status, without an element, or with strange metadata is refused."""
    with pytest.raises(refusal):
        proxy(*items)


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, VERSION, b"{}"),
        (200, VERSION, b'{"output":null}'),
        (200, VERSION, b"ok"),
        (200, {}, b'{"output":{"response":[]}}'),
        (404, VERSION, b""),
        (500, VERSION, b""),
    ],
)
def test_proxy_v1_refuses_a_bad_envelope(status: int, headers: dict[str, str], body: bytes) -> None:
    """No output, no version or another status makes every job 500."""
    with pytest.raises(InvalidReply):
        check_proxy_v1_reply([FIRST], status, headers, body)


@pytest.mark.parametrize(
    ("status", "inner", "state", "error"),
    [
        (200, 200, "succeeded", ""),
        (200, 204, "succeeded", ""),
        (429, 429, "retry", "text"),
        (400, 404, "aborted", "text"),
        (500, 500, "retry", "text"),
    ],
)
def test_proxy_v0_reply_is_its_http_status(status: int, inner: int, state: str, error: str) -> None:
    """With v0 the HTTP status is the status of every job, a 2xx written 200 and a 404 written 400."""
    body = json.dumps({"output": {"status": inner, "message": "text", "destinationResponse": {}}}).encode()
    reply = check_proxy_v0_reply([FIRST, SECOND], status, {}, body)
    assert [(1, status, state, error), (2, status, state, error)] == [
        (job.job_id, job.status, job.state, job.error) for job in reply.jobs
    ]


def test_proxy_v0_may_be_unavailable() -> None:
    """A 503 of any body is the status of every job, to be tried again."""
    assert [(job.status, job.state) for job in check_proxy_v0_reply([FIRST], 503, {}, b"").jobs] == [(503, "retry")]


@pytest.mark.parametrize(
    ("status", "body", "refusal"),
    [
        (200, b'{"output":{"status":500}}', InvalidReply),
        (404, b'{"output":{"status":404}}', InvalidReply),
        (200, b'{"output":{"status":"200"}}', InvalidReply),
        (200, b'{"output":{}}', InvalidReply),
        (200, b"", InvalidReply),
        (200, b'{"output":{"status":0}}', StalledForever),
    ],
)
def test_proxy_v0_refuses_contradictions(status: int, body: bytes, refusal: type[RudderRefusal]) -> None:
    """A reply whose body says another status than its HTTP line is refused, and so is a 404."""
    with pytest.raises(refusal):
        check_proxy_v0_reply([FIRST], status, {}, body)
