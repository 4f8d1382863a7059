"""The request on the wire: addresses from the settings, credentials for the conversions host only."""

import base64
from typing import Any

import msgspec
import pytest

from impact_plugin.config.settings import ImpactSettings
from impact_plugin.delivery.endpoints import Endpoints
from impact_transformers import Secret, Send, decode_event, transform
from tests.builders import compiled


def sent(message: dict[str, Any], config: dict[str, Any]) -> Send:
    """The request that the message becomes."""
    destination = compiled(config)
    outcome = transform(decode_event(msgspec.json.encode(message)), destination, message)
    assert isinstance(outcome, Send)
    return outcome


@pytest.mark.parametrize("slash", ["", "/", "//"])
def test_addresses_come_from_the_settings(
    order: dict[str, Any], page: dict[str, Any], config: dict[str, Any], slash: str
) -> None:
    """Both hosts are replaceable, with or without a slash at the end."""
    endpoints = Endpoints(ImpactSettings(f"http://track.example.com{slash}", f"http://api.example.com/v1{slash}"))
    conversion, page_load = sent(order, config), sent(page, config)

    assert endpoints.of(page_load.request, page_load.config).url == "http://track.example.com/PageLoad"
    assert (
        endpoints.of(conversion.request, conversion.config).url
        == "http://api.example.com/v1/Advertisers/IRtest/Conversions"
    )


def test_credentials_go_to_the_conversions_host_only(
    order: dict[str, Any], page: dict[str, Any], config: dict[str, Any]
) -> None:
    """The tracking host needs none, so it gets none."""
    endpoints = Endpoints(ImpactSettings())
    conversion, page_load = sent(order, config), sent(page, config)
    headers = msgspec.json.decode(endpoints.of(conversion.request, conversion.config).headers_json)
    tracking = msgspec.json.decode(endpoints.of(page_load.request, page_load.config).headers_json)
    common = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}

    assert headers == {
        **common,
        "Authorization": "Basic " + base64.b64encode(b"IRtest:test-token-secret").decode(),
    }
    assert tracking == common


def test_two_accounts_in_turn_keep_their_own_credentials(order: dict[str, Any], config: dict[str, Any]) -> None:
    """What is remembered for the last account is never used for the next."""
    endpoints = Endpoints(ImpactSettings())
    other = {**config, "accountSID": "IRother", "apiKey": "another"}
    seen = [endpoints.of(one.request, one.config).url for one in (sent(order, config), sent(order, other)) * 2]
    tokens = {
        bytes(endpoints.of(one.request, one.config).headers_json)
        for one in (sent(order, config), sent(order, other), sent(order, {**config, "apiKey": "rotated"}))
    }

    assert [url.split("/")[-2] for url in seen] == ["IRtest", "IRother", "IRtest", "IRother"]
    assert len(tokens) == 3


def test_header_values_are_masked_when_shown(order: dict[str, Any], config: dict[str, Any]) -> None:
    """The readable headers hold secrets, which do not print."""
    one = sent(order, config)
    endpoint = Endpoints(ImpactSettings()).of(one.request, one.config)

    assert isinstance(endpoint.headers["Authorization"], Secret)
    assert "***" in repr(endpoint.headers["Authorization"])
    assert "test-token-secret" not in repr(endpoint.headers)
    assert base64.b64encode(b"IRtest:test-token-secret").decode() not in repr(endpoint)
