"""Where Page Loads and Conversions are sent: URL, headers and credentials of each account."""

import base64
from functools import lru_cache
from typing import Final

import msgspec

from impact_plugin.config.settings import ImpactSettings
from impact_transformers import Conversion, DestinationConfig, Request, Secret

FORM_TYPE: Final = "application/x-www-form-urlencoded"


class Endpoint(msgspec.Struct, frozen=True):
    """URL and headers of one kind of request. ``headers_json`` may contain credentials: never log it."""

    url: str
    headers: dict[str, Secret]
    headers_json: msgspec.Raw


class Endpoints:
    """The two endpoints of each account.

    Only Conversions have credentials; Page Loads need none.
    https://integrations.impact.com/impact-brand/reference/create-a-pageload
    """

    def __init__(self, impact: ImpactSettings) -> None:
        self._api_url = impact.api_url.rstrip("/")
        self.page_load = _endpoint(f"{impact.tracking_url.rstrip('/')}/PageLoad", {})
        self._conversions = lru_cache(maxsize=4096)(self._make_conversions)
        self._last: tuple[DestinationConfig | None, Endpoint] = (None, self.page_load)

    def of(self, request: Request, config: DestinationConfig) -> Endpoint:
        """The endpoint for a request to this destination."""
        if not isinstance(request, Conversion):
            return self.page_load
        # All events of a batch have the same destination: comparing identity avoids hashing the secret for each event.
        if self._last[0] is not config:
            self._last = (config, self._conversions(config.account_sid, config.api_key))
        return self._last[1]

    def _make_conversions(self, account_sid: str, token: Secret) -> Endpoint:
        pair = base64.b64encode(f"{account_sid}:{token.reveal()}".encode()).decode()
        url = f"{self._api_url}/Advertisers/{account_sid}/Conversions"
        return _endpoint(url, {"Authorization": f"Basic {pair}"})


def _endpoint(url: str, credentials: dict[str, str]) -> Endpoint:
    headers = {"Content-Type": FORM_TYPE, "Accept": "application/json", **credentials}
    secret = {name: Secret(value) for name, value in headers.items()}
    return Endpoint(url, secret, msgspec.Raw(msgspec.json.encode(headers)))
