"""A secret shows itself to nobody but the one who asks."""

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

from impact_transformers import ConfigurationError, Secret
from tests.builders import compiled

VALUE: Final = "very-secret-token"


class Holder(msgspec.Struct):
    """A Struct someone put a secret into."""

    secret: Secret


def test_reveal() -> None:
    """``reveal`` gives the secret itself."""
    assert VALUE == Secret(VALUE).reveal()


@pytest.mark.parametrize(
    "show",
    [repr, str, format, "{}".format, "{0!r}".format, "%s".__mod__, ascii, lambda s: f"{s} {s!s}", lambda s: repr([s])],
)
def test_shown_as_a_mask(show: Callable[[Secret], str]) -> None:
    """Whatever prints it shows a mask."""
    assert VALUE not in show(Secret(VALUE))
    assert "***" in show(Secret(VALUE))


@pytest.mark.parametrize(
    "leak",
    [
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        json.dumps,
        msgspec.json.encode,
        msgspec.msgpack.encode,
        msgspec.to_builtins,
        lambda s: msgspec.json.encode(Holder(s)),
        lambda s: pickle.dumps(Holder(s)),
        vars,
    ],
)
def test_refuses_to_be_encoded(leak: Callable[[Any], object]) -> None:
    """Encoding, pickling and copying fail loudly instead of leaking."""
    with pytest.raises(TypeError) as caught:
        leak(Secret(VALUE))

    assert VALUE not in str(caught.value)


def test_a_struct_around_it_shows_the_mask() -> None:
    """The repr of a Struct with a secret inside is safe to log."""
    assert "Holder(secret=Secret(***))" == repr(Holder(Secret(VALUE)))


def test_compared_by_value() -> None:
    """Two secrets are equal when their values are, and never equal to plain text."""
    assert Secret(VALUE) == Secret(VALUE)
    assert hash(Secret(VALUE)) == hash(Secret(VALUE))
    assert Secret(VALUE) != Secret("other")
    assert Secret(VALUE) != VALUE
    assert hash(Secret(VALUE)) != hash(VALUE)


def test_empty_is_false() -> None:
    """An empty secret is no secret."""
    assert Secret(VALUE)
    assert not Secret("")


def test_a_destination_shows_the_mask() -> None:
    """The repr of a compiled destination does not give its token away."""
    config = {"accountSID": "IRexample", "apiKey": VALUE, "campaignId": "1"}
    destination = compiled(config)

    assert VALUE not in repr(destination)
    assert VALUE not in str(destination)


@pytest.mark.parametrize("value", [{"token": VALUE}, [VALUE], {"web": VALUE, "cloud": VALUE + "2"}])
def test_never_in_a_message(value: object) -> None:
    """What is wrong with a token is told without the token."""
    config = {"accountSID": "IRexample", "apiKey": value, "campaignId": "1"}
    with pytest.raises(ConfigurationError) as caught:
        compiled(config)

    assert VALUE not in str(caught.value)
    assert VALUE not in repr(caught.value)
