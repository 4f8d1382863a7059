"""What the router reads from ``GET /features``."""

import json
from typing import Any

import pytest

from impact_plugin.rudder.feature_checks import TransformerFeatures, check_features
from impact_plugin.rudder.refusals import (
    InvalidReply,
    RouterPanic,
    RudderRefusal,
)


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
