"""What a transformer offers by ``GET /features``.

Source: ``services/transformer/features_impl.go`` in https://github.com/rudderlabs/rudder-server.
"""

import msgspec

from impact_plugin.rudder.refusals import InvalidReply, RouterPanic


class TransformerFeatures(msgspec.Struct, frozen=True):
    """What ``GET /features`` switches on: router transform by destination type, proxy v1, compacted bodies."""

    router_transform: frozenset[str]
    proxy_v1: bool
    compacted: bool


class _FeaturesBody(msgspec.Struct, rename="camel"):
    router_transform: dict[str, bool] = {}
    regulations: list[str] = []
    support_source_transform_v1: bool = msgspec.field(name="supportSourceTransformV1", default=False)
    upgraded_to_source_transform_v2: bool = msgspec.field(name="upgradedToSourceTransformV2", default=False)
    support_transformer_proxy_v1: bool = msgspec.field(name="supportTransformerProxyV1", default=False)
    compacted: bool = msgspec.field(name="supportDestTransformCompactedPayloadV1", default=False)


def check_features(status: int, body: bytes) -> TransformerFeatures:
    """Return what ``GET /features`` offers.

    Raises RouterPanic if neither source flag is true, and InvalidReply for a status other than 200 or a body of other
    types: the real router then falls back to its built-in features, without compaction, until it restarts.
    """
    if status != 200:
        raise InvalidReply(f"/features answered {status}: the router would boot with its built-in set")
    try:
        parsed = msgspec.json.decode(body, type=_FeaturesBody)
    except msgspec.DecodeError as error:
        raise InvalidReply(f"the reply does not decode: {error}") from error
    if not (parsed.upgraded_to_source_transform_v2 or parsed.support_source_transform_v1):
        raise RouterPanic("neither upgradedToSourceTransformV2 nor supportSourceTransformV1 is true")
    enabled = frozenset(name for name, on in parsed.router_transform.items() if on)
    return TransformerFeatures(enabled, proxy_v1=parsed.support_transformer_proxy_v1, compacted=parsed.compacted)
