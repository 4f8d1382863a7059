"""The common calls that are not forwarded take the fast road with their batch."""

from typing import Any

import msgspec
import pytest

from impact_plugin.config.destinations import Destinations
from impact_plugin.protocols.rudder_envelope import BatchReader, RawBatch, TypedBatch
from impact_plugin.protocols.rudder_router import destination_type
from impact_plugin.transformation.batch import TypedJob


@pytest.mark.parametrize("kind", ["group", "alias"])
def test_a_call_that_is_not_forwarded_slows_no_batch_down(kind: str) -> None:
    """One group or alias call does not send its batch through the event-by-event reader."""
    items: list[dict[str, Any]] = [{"message": {"type": name}, "metadata": {"jobId": 1}} for name in ("page", kind)]
    body = msgspec.json.encode({"input": items, "destinations": {"d": {}}})
    batch = BatchReader(TypedBatch, RawBatch).read(body, Destinations({}))

    assert [type(job) for job in batch.jobs] == [TypedJob, TypedJob]


@pytest.mark.parametrize(
    "body",
    [
        b'{"input":[],"destType":"impact"}',
        b'{"input":[],"destType":"IMPACT"}\n',
        b'{"destType": "impact", "input": []}',
        b'{"input":[{"message":{"destType":"marketo"}}],"destType":"impact","destinations":{}}',
        b'{"input":[{"message":{"destType":"marketo"}}],"destType":"impact"}',
    ],
)
def test_the_type_is_that_of_the_body(body: bytes) -> None:
    """Wherever destType stands at the top of a router's body it is found, and those inside of events are not."""
    assert destination_type(body) == "impact"


def test_a_type_inside_the_last_event_is_not_the_bodys() -> None:
    """A body without a type of its own has none, whatever its last event carries."""
    assert not destination_type(b'{"input":[{"message":{"x":{"destType":"impact"}}}]}')
