"""Which request objects the router sends as meant, and what it makes of the others."""

import json
from typing import Any

import pytest

from impact_plugin.rudder.refusals import (
    BatchAborted,
    CorruptedForm,
    InvalidReply,
    MissingContentType,
    RouterPanic,
    RudderRefusal,
    SilentLoss,
    StalledForever,
)
from impact_plugin.rudder.request_objects import check_request_object
from tests.plugin.rudder.request_builders import form, request_object


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
