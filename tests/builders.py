"""What many tests are made of: events, configurations, jobs, questions to the sessions, requests, settings, a clock.

Each builder gives what such a thing always has, and the test says what matters to it.
"""

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from impact_plugin.config.manifest import load_manifest
from impact_plugin.config.settings import Settings, make_settings
from impact_plugin.store.base import SessionQuery
from impact_transformers import AnyDestination, Question, compile_destination
from impact_transformers.clicks import SEPARATOR

TOKEN: Final = "test-token-secret"
CONFIG: Final[dict[str, Any]] = {"accountSID": "IRtest", "apiKey": TOKEN, "campaignId": "23224"}
"""The least that a destination is configured with."""

SHOP: Final[dict[str, Any]] = {**CONFIG, "actionEventNames": [{"eventName": "Order Completed"}]}
"""A destination as RudderStack's form saves it."""

NOWHERE: Final = "http://127.0.0.1:9"
"""An address where nobody listens."""

HOME: Final = "https://shop.example.com/"
AT: Final = "2026-09-10T10:00:00.000Z"
NOON: Final = 1_789_000_000.0
"""Where most clocks of tests stand, in seconds since 1970."""

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR


class Clock:
    """Seconds since 1970, as the test sets them."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        """Now."""
        return self.now

    @property
    def ms(self) -> int:
        """Now, in milliseconds."""
        return int(self.now * 1000)


def event(kind: str, message: str, visitor: str = "a-1", **more: Any) -> dict[str, Any]:
    """An event as an SDK sends it."""
    return {"type": kind, "messageId": message, "anonymousId": visitor, "timestamp": AT, **more}


def page(message: str = "m-page", visitor: str = "a-1", url: str = HOME, **more: Any) -> dict[str, Any]:
    """A page call, which becomes a Page Load."""
    return event("page", message, visitor, **{"properties": {"url": url}, **more})


def landing(message: str = "m-landing", visitor: str = "a-1", click_id: str = "CLICK-1", **more: Any) -> dict[str, Any]:
    """A page call whose URL carries a click id."""
    return page(message, visitor, f"{HOME}?irclickid={click_id}", **more)


def order(order_id: str = "o-1", message: str = "m-order", visitor: str = "a-1", **more: Any) -> dict[str, Any]:
    """An order, which becomes a Conversion."""
    properties = {"order_id": order_id, "total": 25.0, "currency": "EUR"}
    return event("track", message, visitor, **{"event": "Order Completed", "properties": properties, **more})


def moment(minute: int) -> dict[str, str]:
    """When an event happened and was received: that many minutes after ten o'clock, and a second later."""
    at = f"2026-09-10T{10 + minute // 60}:{minute % 60:02}"
    return {"timestamp": f"{at}:00.000Z", "receivedAt": f"{at}:01.000Z"}


def job(
    message: Any, number: int = 1, config: dict[str, Any] | None = None, to: str = "d-1", workspace: str = "ws-1"
) -> dict[str, Any]:
    """An element of a transformer's batch, as RudderStack writes it."""
    named = {"messageId": message["messageId"]} if isinstance(message, dict) and "messageId" in message else {}
    return {
        "message": message,
        "metadata": {"jobId": number, "destinationId": to, "workspaceId": workspace, **named},
        "destination": {"ID": to, "WorkspaceID": workspace, "Config": SHOP if config is None else config},
    }


def batch(events: Iterable[Any], config: dict[str, Any] | None = None) -> bytes:
    """The body of a transformer's request: a job for each event, numbered from 1."""
    return msgspec.json.encode([job(one, number, config) for number, one in enumerate(events, 1)])


def basic(user: str = "IRtest", password: str = TOKEN) -> str:
    """An ``Authorization`` header by name and password."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def conversion(order_id: str = "o-1", visitor: str = "a-1", **more: str) -> dict[str, str]:
    """The form of a Conversion."""
    common = {"CampaignId": "23224", "EventTypeId": "1", "EventDate": "2026-09-10T10:00:00Z"}
    return {**common, "OrderId": order_id, "CustomProfileId": visitor, **more}


def page_load(visitor: str = "a-1", **more: str) -> dict[str, str]:
    """The form of a Page Load."""
    return {"CampaignId": "23224", "EventDate": "2026-09-10T10:00:00Z", "CustomProfileId": visitor, **more}


def request(endpoint: str, form: dict[str, Any], authorization: str | None = None, **more: Any) -> dict[str, Any]:
    """A request that the router wants delivered, without its metadata."""
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    return {
        "type": "REST",
        "endpoint": endpoint,
        "method": "POST",
        "userId": "",
        "headers": headers | ({} if authorization is None else {"Authorization": authorization}),
        "params": {},
        "body": {"JSON": {}, "JSON_ARRAY": {}, "XML": {}, "FORM": form},
        "files": {},
        **more,
    }


def compiled(base: dict[str, Any] = CONFIG, **keys: Any) -> AnyDestination:
    """The destination that the manifest makes of a configuration; ``keys`` are added to it."""
    return compile_destination({**base, **keys}, load_manifest().configuration)


def question(message: str = "m", **more: Any) -> Question:
    """What an event asks the sessions: nothing, unless the test says so."""
    noon = int(NOON * 1000)
    plain: dict[str, Any] = {
        "program": f"IRtest{SEPARATOR}23224", "message": message, "time": noon, "received": noon, "key": None,
        "click_id": None, "anonymous_id": "a-1", "user_id": None, "asks": False, "joins": False, "order": False,
        "window_ms": 30 * MINUTE, "referral_ms": 30 * DAY, "first": False,
    }  # fmt: skip
    return Question(**{**plain, **more})


def digest(text: object) -> bytes:
    """A digest as the service makes them."""
    return hashlib.blake2b(str(text).encode(), digest_size=15).digest()


def query(message: str, minute: float = 0, **more: Any) -> SessionQuery:
    """What the store is asked for an event, that many minutes after noon."""
    return SessionQuery(digest(message), int(NOON * 1000) + int(minute * MINUTE), **more)


def settings(folder: Path, impact_url: str = NOWHERE, **sections: dict[str, Any]) -> Settings:
    """Settings of a service on free ports, with its state in the folder; ``sections`` are merged over them."""
    tree: dict[str, dict[str, Any]] = {
        "server": {"port": 0, "operator_port": 0, "ingest_port": 0, "shutdown_grace_seconds": 1.0},
        "impact": {"tracking_url": impact_url, "api_url": impact_url},
        "state": {"dir": str(folder)},
    }
    return make_settings({name: {**tree.get(name, {}), **sections.get(name, {})} for name in {**tree, **sections}})
