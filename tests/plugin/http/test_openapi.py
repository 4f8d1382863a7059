"""The OpenAPI document: valid, served, and of exactly the endpoints there are."""

import io
import re
from collections.abc import Iterator
from typing import Any
from unittest.mock import AsyncMock, Mock

import aiohttp
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from impact_plugin import __version__
from impact_plugin.app import Service
from impact_plugin.config.settings import Settings, make_settings
from impact_plugin.http.ingest import IngestApp
from impact_plugin.http.openapi.bodies import REQUESTS, RESPONSES
from impact_plugin.http.openapi.document import PORTS, document, document_json
from impact_plugin.http.operator import OperatorApp
from impact_plugin.http.router import RouterApp
from impact_plugin.http.routes import ROUTES, WEBHOOK_METHODS, PortName
from impact_plugin.protocols.segment_api import CALLS


@pytest.fixture(name="described", scope="module")
def described_fixture() -> dict[str, Any]:
    """Lend the document as whoever fetches it reads it."""
    found: dict[str, Any] = msgspec.json.decode(document_json(Settings()))
    return found


def operations(described: dict[str, Any], port: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and operation of all, or of a port's."""
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if not port or port in operation["tags"]:
                yield method.upper(), path, operation


def endpoints(described: dict[str, Any], port: str) -> set[tuple[str, str]]:
    """Method and path of a port's operations."""
    return {(method, path) for method, path, _ in operations(described, port)}


def references(value: Any) -> Iterator[str]:
    """Every reference inside."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_the_document_is_openapi(described: dict[str, Any]) -> None:
    """It holds against the specification's own schema, and its version is the package's."""
    assert [] == [error.message for error in OpenAPIV31SpecValidator(described).iter_errors()]
    assert described["openapi"].startswith("3.1.")
    assert __version__ == described["info"]["version"]


@pytest.mark.parametrize(("port", "app"), [("router", RouterApp), ("operator", OperatorApp), ("ingest", IngestApp)])
def test_the_document_is_of_the_routes_of_the_ports(described: dict[str, Any], port: PortName, app: type) -> None:
    """Nothing is served that is not described, and the other way round; every route has its handler."""
    assert {(route.method, route.path) for route in ROUTES[port]} == endpoints(described, port)
    assert [] == [route.handler for route in ROUTES[port] if not callable(getattr(app, route.handler, None))]


def test_the_operators_port_serves_its_routes() -> None:
    """HEAD as well, but for recordings: one would be kept under way that nobody gets."""
    app = OperatorApp(Mock(), Mock(), Mock(), Mock(), AsyncMock(), Mock()).application()
    served = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    heads = {path for method, path in served if method == "HEAD"}

    assert {(route.method, route.path) for route in ROUTES["operator"]} == {one for one in served if one[0] != "HEAD"}
    assert heads == {route.path for route in ROUTES["operator"] if route.method == "GET"} - {"/record"}


def test_the_document_is_of_the_paths_of_the_ingest_port(described: dict[str, Any]) -> None:
    """Every call of the Segment API, webhooks with the key in the path and without, and health."""
    told = endpoints(described, "ingest")
    calls = {path for _, path in told if not path.startswith(("/webhook", "/health"))}

    assert calls == {f"/v1/{word}" for word in CALLS} | {"/batch/"}
    assert told - {("POST", path) for path in calls} == {
        ("GET", "/health"),
        *((method, f"/webhook/{{source}}{token}") for method in WEBHOOK_METHODS for token in ("", "/{token}")),
    }


def test_every_operation_is_told_about(described: dict[str, Any]) -> None:
    """A name of its own, what it is for, a server of each of its ports, and a meaning of every status."""
    ids = [operation["operationId"] for _, _, operation in operations(described)]
    assert len(ids) == len(set(ids))
    for _, _, operation in operations(described):
        assert operation["summary"].endswith(".")
        assert operation["description"].endswith(".")
        assert set(operation["tags"]) <= set(PORTS)
        assert len(operation["servers"]) == len(operation["tags"])
        assert operation["responses"]


def test_every_schema_has_a_short_name_and_a_use(described: dict[str, Any]) -> None:
    """Names are ours, not those of modules; none is left over, and every reference leads somewhere."""
    named = {
        f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in described["components"][kind]
    }

    assert [] == [name for name in described["components"]["schemas"] if not re.fullmatch(r"[A-Za-z0-9]+", name)]
    assert set(REQUESTS) | set(RESPONSES) <= set(described["components"]["schemas"])
    assert named == set(references(described))


def test_only_the_ingest_port_asks_for_keys(described: dict[str, Any]) -> None:
    """Basic or bearer, among others; the two other ports have no authentication."""
    for _, path, operation in operations(described):
        schemes = {name for choice in operation["security"] for name in choice}
        assert ({"basicKey", "bearerKey"} <= schemes) == (operation["tags"] == ["ingest"]), path


def test_the_document_follows_the_settings() -> None:
    """Ports and destination types are those of the service that serves it."""
    told = document(make_settings({"server": {"port": 8000}, "rudder": {"destination_types": ["IMPACT_EU"]}}))
    (transform,) = [one for method, path, one in operations(told, "router") if path == "/v0/destinations/{type}"]

    assert transform["servers"][0]["variables"]["port"] == {"default": "8000"}
    assert transform["parameters"][0]["schema"]["enum"] == ["impact_eu"]


async def test_the_operators_port_serves_the_document(http: aiohttp.ClientSession, service: Service) -> None:
    """Whoever can ask the service can learn how."""
    async with http.get(f"{service.operator_url}/openapi.json") as response:
        served = msgspec.json.decode(await response.read())

    assert (response.status, response.content_type) == (200, "application/json")
    assert served["paths"].keys() == document()["paths"].keys()


async def test_a_deletion_with_too_large_a_body_is_refused_as_documented(
    http: aiohttp.ClientSession, service: Service
) -> None:
    """As every other refusal: JSON that says what is wrong."""
    large = io.BytesIO(msgspec.json.encode({"users": ["u" * 2**20]}))
    async with http.post(f"{service.operator_url}/forget", data=large) as response:
        body = msgspec.json.decode(await response.read())

    assert (response.status, response.content_type) == (413, "application/json")
    assert "error" in body
