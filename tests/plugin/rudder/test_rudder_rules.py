"""The rules by which StrictRudder judges replies: what passes, what is refused, and under which name."""

import json
from typing import Any

import pytest

from impact_plugin.rudder.features import TransformerFeatures, check_features
from impact_plugin.rudder.go import go_sprint
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
from impact_plugin.rudder.request_objects import check_request_object
from impact_plugin.rudder.retries import back_pressure_wait, backoff, next_state, processor_outcome, transport_wait

VERSION = {"apiVersion": "2"}
FIRST = RequestJob(1, b'{"jobId":1,"rudderId":"\\u003c\\u003e","dontBatch":false}')
SECOND = RequestJob(2, b'{"jobId":2,"rudderId":"\\u003c\\u003e","dontBatch":false}')


def request_object(**changes: Any) -> dict[str, Any]:
    """Return a request object that the router sends as meant, with some of its members changed."""
    sound = {
        "version": "1",
        "type": "REST",
        "method": "POST",
        "endpoint": "https://api.impact.com/Advertisers/IRlocalSID/Conversions",
        "endpointPath": "conversions",
        "headers": {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
        "params": {},
        "body": {"JSON": {}, "JSON_ARRAY": {}, "XML": {}, "FORM": {"OrderId": "o-1"}},
        "files": {},
        "userId": "",
    }
    return sound | changes


def form(**fields: Any) -> dict[str, Any]:
    """Return a request object whose form holds these fields."""
    return request_object(body={"FORM": fields})


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


# --- the retry table


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (0, "retry"),
        (199, "retry"),
        (200, "succeeded"),
        (298, "filtered"),
        (299, "succeeded"),
        (302, "aborted"),
        (400, "aborted"),
        (408, "retry"),
        (429, "retry"),
        (499, "aborted"),
        (500, "retry"),
        (599, "retry"),
        (809, "retry"),
    ],
)
def test_first_try_is_judged_by_its_status(status: int, state: str) -> None:
    """A first failure is tried again unless its status lies between 300 and 499; 408 and 429 are not refusals."""
    assert state == next_state(status, attempt=1, first_failed_at=None, now=0.0)


@pytest.mark.parametrize(
    ("status", "attempt", "age", "state"),
    [
        (500, 3, 10800.0, "retry"),
        (500, 3, 10800.5, "aborted"),
        (500, 2, 99999.0, "retry"),
        (500, 99, 60.0, "retry"),
        (429, 99, 99999.0, "retry"),
        (599, 99, 99999.0, "retry"),
        (0, 99, 99999.0, "retry"),
    ],
)
def test_only_server_errors_grow_old(status: int, attempt: int, age: float, state: str) -> None:
    """A 5xx is given up once it is past the window and was tried three times; a 429, a 599 and a 0 never are."""
    assert state == next_state(status, attempt=attempt, first_failed_at=1000.0, now=1000.0 + age)


def test_backoff_doubles_to_five_minutes() -> None:
    """A failed job waits 10 s, then twice as long each time, up to 300 s, however often it failed."""
    assert [backoff(attempt) for attempt in range(1, 8)] == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    assert backoff(10_000) == 300.0


def test_backoff_counts_from_one() -> None:
    """There is no wait before the first failure, and asking for one is a mistake."""
    with pytest.raises(ValueError, match="counted from 1"):
        backoff(0)


def test_processor_waits_have_two_rhythms() -> None:
    """Back-pressure is asked again after 1, 2, 4 .. 30 s, faults after 0.5 s growing by half up to 30 s."""
    assert [back_pressure_wait(attempt) for attempt in range(1, 8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert [transport_wait(attempt) for attempt in range(1, 4)] == [0.5, 0.75, 1.125]
    assert transport_wait(30) == 30.0


@pytest.mark.parametrize(
    ("status", "headers", "outcome"),
    [
        (200, {}, "reply"),
        (503, {"x-rudder-should-retry": "true"}, "retry"),
        (503, {"X-Rudder-Should-Retry": "false"}, "backoff_then_panic"),
        (503, {}, "backoff_then_panic"),
        (500, {"X-Rudder-Should-Retry": "true"}, "backoff_then_panic"),
        (408, {}, "backoff_then_panic"),
        (429, {}, "backoff_then_panic"),
        (204, {}, "aborted"),
        (302, {}, "aborted"),
        (404, {}, "aborted"),
        (413, {}, "aborted"),
    ],
)
def test_processor_looks_at_the_http_status_first(status: int, headers: dict[str, str], outcome: str) -> None:
    """Only a 503 with should-retry asks for time; faults are retried until the panic; the rest aborts the chunk."""
    assert outcome == processor_outcome(status, headers)


# --- Go's notation


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (1000000, "1e+06"),
        (1234567.89, "1.23456789e+06"),
        (9217374917471, "9.217374917471e+12"),
        ({"a": 1}, "map[a:1]"),
        (None, "<nil>"),
        (332, "332"),
        (-12.5, "-12.5"),
        (999999, "999999"),
        (0, "0"),
        (100000.0, "100000"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (-2e21, "-2e+21"),
        (True, "true"),
        (False, "false"),
        (["a", 1, None, True], "[a 1 <nil> true]"),
        ({"b": 1, "a": {"c": "x"}}, "map[a:map[c:x] b:1]"),
        ("1e6", "1e6"),
    ],
)
def test_values_are_printed_as_go_prints_them(value: Any, printed: str) -> None:
    """Numbers from a million up turn to exponents, objects to maps and null to nil, as Go itself was seen to do."""
    assert printed == go_sprint(value)


# --- the request object


def test_sound_request_is_returned_decoded() -> None:
    """A request object that the router sends as meant comes back as it was."""
    assert request_object() == check_request_object(json.dumps(request_object()).encode())


def test_nulls_pass_where_go_takes_them() -> None:
    """Params, files and userId may be null, and so may the bodies left out."""
    request = request_object(params=None, files=None, userId=None, body={"FORM": {"OrderId": "o-1"}})
    assert request == check_request_object(json.dumps(request).encode())


@pytest.mark.parametrize(
    ("request_", "refusal"),
    [
        (request_object(headers={"Content-Type": "application/json", "X-Try": 1}), StalledForever),
        (request_object(headers={"Content-Type": "application/json", "X-Try": True}), StalledForever),
        (request_object(userId=7), StalledForever),
        (request_object(params=[]), StalledForever),
        (request_object(files=[]), StalledForever),
        (request_object(body="OrderId=1"), StalledForever),
        (request_object(type="GraphQL"), SilentLoss),
        (request_object(type="rest"), SilentLoss),
        (request_object(type=None), SilentLoss),
        (request_object(files={"a": "b"}), SilentLoss),
        (request_object(body=None), SilentLoss),
        (request_object(body={"FORM": {}}), SilentLoss),
        (request_object(body={"FORM": {"a": "b"}, "JSON": {"a": "b"}}), SilentLoss),
        (request_object(body={"FORM": [["a", "b"]]}), InvalidReply),
        (request_object(body={"YAML": {"a": "b"}}), RouterPanic),
        (request_object(body={"XML": {"payload": 1}}), BatchAborted),
        (form(ItemPrice1=332), CorruptedForm),
        (form(ItemPrice1=1000000), CorruptedForm),
        (form(OrderPromoCode=None), CorruptedForm),
        (form(Items={"a": 1}), CorruptedForm),
        (form(IsNew=True), CorruptedForm),
        (request_object(params={"n": 1234567.89}), CorruptedForm),
        (request_object(params={"n": None}), CorruptedForm),
        (request_object(params={"n": [1]}), CorruptedForm),
        (request_object(headers={"Accept": "application/json"}), MissingContentType),
        (request_object(headers=None), MissingContentType),
        (request_object(headers={"Content-Type": "application/json"}), MissingContentType),
    ],
)
def test_request_that_would_not_arrive_is_refused(request_: dict[str, Any], refusal: type[RudderRefusal]) -> None:
    """Whatever the router cannot decode, does not send, or sends spoilt, is refused under its own name."""
    with pytest.raises(refusal) as caught:
        check_request_object(json.dumps(request_).encode(), [7])
    assert (refusal, (7,)) == (type(caught.value), caught.value.job_ids)


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/json; charset=utf-8", {"JSON": {"a": 1}}),
        ("application/json", {"JSON_ARRAY": {"batch": "[1]"}}),
        ("text/xml", {"XML": {"payload": "<a/>"}}),
        ("application/octet-stream", {"GZIP": {"payload": "x"}}),
    ],
)
def test_other_bodies_pass_with_their_own_type(media_type: str, body: dict[str, Any]) -> None:
    """JSON, arrays, XML and gzip are sent as well, numbers in JSON included; header names have no case."""
    request = request_object(body=body, headers={"content-type": media_type}, params={"n": 12, "o": {"a": 1}})
    assert request == check_request_object(json.dumps(request).encode())


# --- features


def features_body(**changes: Any) -> bytes:
    """Return a features body with all switches on and some members changed."""
    sound = {
        "routerTransform": {"IMPACT": True, "OTHER": False},
        "regulations": ["AM"],
        "supportSourceTransformV1": True,
        "upgradedToSourceTransformV2": True,
        "supportTransformerProxyV1": True,
        "supportDestTransformCompactedPayloadV1": True,
    }
    return json.dumps(sound | changes).encode()


def test_features_are_read() -> None:
    """Router transform lists the types that are true; proxy v1 and compaction are flags; unknown keys are let be."""
    expected = TransformerFeatures(frozenset({"IMPACT"}), proxy_v1=True, compacted=True)
    assert expected == check_features(200, features_body(later=1))


@pytest.mark.parametrize("flag", ["supportSourceTransformV1", "upgradedToSourceTransformV2"])
def test_one_source_flag_is_enough(flag: str) -> None:
    """The router boots with either source version."""
    assert check_features(200, features_body(**{flag: False})).compacted


@pytest.mark.parametrize(
    ("status", "body", "refusal"),
    [
        (200, features_body(supportSourceTransformV1=False, upgradedToSourceTransformV2=False), RouterPanic),
        (200, b"{}", RouterPanic),
        (200, b"ok", InvalidReply),
        (200, features_body(supportTransformerProxyV1="true"), InvalidReply),
        (404, features_body(), InvalidReply),
        (503, features_body(), InvalidReply),
    ],
)
def test_features_that_spoil_the_boot_are_refused(status: int, body: bytes, refusal: type[RudderRefusal]) -> None:
    """Without source flags the router crashes; with another status it boots without our switches."""
    with pytest.raises(refusal):
        check_features(status, body)


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
