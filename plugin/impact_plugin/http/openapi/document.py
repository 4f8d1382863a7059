"""The OpenAPI document of all endpoints, made of their declarations and of the Structs that read and write the bodies.

https://spec.openapis.org/oas/v3.1.1.html
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

import msgspec

from impact_plugin import __version__
from impact_plugin.config.settings import Settings
from impact_plugin.http.openapi.bodies import DESCRIPTIONS, FOREIGN, REPLIES, REQUESTS
from impact_plugin.http.openapi.operation import JSON, DocumentedAnswer, Operation
from impact_plugin.http.openapi.schemas import Schema, components
from impact_plugin.http.routes import ROUTES, PortName

PORTS: Final[dict[PortName, str]] = {
    "router": (
        "What a router asks of a transformer. It has no authentication: keep it where only the router can reach it. "
        "Slashes too many and the case of letters make no difference. Every request that is not described here goes to "
        "the upstream transformer and its answer back, as they are; without one the answer is 503."
    ),
    "operator": "For operators and their machines only; it has no authentication.",
    "ingest": (
        "For senders of events; open only where the configuration has sources. A request with a key that no source has "
        "is refused, and 200 says that events are durable. A key stands in one of several places, see docs/ingest.md."
    ),
}
"""The ports, which are the tags, and what they are for."""

SECURITY_SCHEMES: Final[dict[str, Schema]] = {
    "basicKey": {"type": "http", "scheme": "basic", "description": "The key as the user; webhooks also as password."},
    "bearerKey": {"type": "http", "scheme": "bearer", "description": "The key."},
    "headerKey": {"type": "apiKey", "in": "header", "name": "X-Write-Key", "description": "The key."},
    "queryKey": {"type": "apiKey", "in": "query", "name": "token", "description": "The key; webhooks only."},
}

SECURED: Final[dict[str, list[Schema]]] = {
    "": [],
    # Without any of them: the key is the body's writeKey, or in the path, or the source is known by its signature.
    "segment_api": [{"basicKey": []}, {"bearerKey": []}, {"headerKey": []}, {}],
    "webhook": [{"basicKey": []}, {"bearerKey": []}, {"headerKey": []}, {"queryKey": []}, {}],
}


def document(settings: Settings | None = None) -> dict[str, Any]:
    """The document for a service with these settings; the defaults unless told."""
    settings = settings or Settings()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "impact-plugin",
            "version": __version__,
            "summary": "Destination plugin between an analytics router and impact.com.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": list(_servers(settings).values()),
        "tags": [{"name": port, "description": description} for port, description in PORTS.items()],
        "paths": _paths(settings),
        "components": {"schemas": _schemas(), "responses": _responses(), "securitySchemes": SECURITY_SCHEMES},
    }


def document_json(settings: Settings) -> bytes:
    """The document as it is served."""
    return msgspec.json.encode(document(settings))


def _servers(settings: Settings) -> dict[PortName, Schema]:
    server = settings.server
    places: dict[PortName, tuple[str, int]] = {
        "router": (server.host, server.port),
        "operator": (server.operator_host, server.operator_port),
        "ingest": (server.ingest_host, server.ingest_port),
    }
    return {
        name: {
            "url": "http://{host}:{port}",
            "description": f"The {name}'s port." if name != "ingest" else "The ingest port.",
            "variables": {"host": {"default": host}, "port": {"default": str(port)}},
        }
        for name, (host, port) in places.items()
    }


def _paths(settings: Settings) -> dict[str, Schema]:
    paths: dict[str, Schema] = {}
    servers = _servers(settings)
    types = [name.lower() for name in settings.rudder.destination_types]
    for port, routes in ROUTES.items():
        for route in routes:
            methods = paths.setdefault(route.path, {})
            described = methods.setdefault(route.method.lower(), _operation(route.operation, types))
            described["tags"].append(port)
            described["servers"].append(servers[port])
    return paths


def _operation(operation: Operation, types: list[str]) -> Schema:
    """The operation, whose ports are filled in later: several may have the same."""
    described: Schema = {
        "operationId": operation.id,
        "tags": [],
        "summary": operation.summary,
        "description": operation.description,
        "security": SECURED[operation.secured],
    }
    if operation.parameters:
        described["parameters"] = [_parameter(one, types) for one in operation.parameters]
    if operation.body is not None:
        content = {JSON: {"schema": operation.body, "example": operation.example}}
        described["requestBody"] = {"required": True, "content": content}
    described["responses"] = {str(answer.status): _referred(answer) for answer in operation.answers}
    described["servers"] = []
    return described


def _parameter(parameter: Schema, types: Iterable[str]) -> Schema:
    """The parameter; which destination types are ours, the settings say."""
    if parameter["name"] != "type":
        return parameter
    return {**parameter, "schema": {"type": "string", "enum": list(types)}}


def _referred(answer: DocumentedAnswer) -> Schema:
    return {"$ref": f"#/components/responses/{answer.name}"} if answer.name else _response(answer)


def _response(answer: DocumentedAnswer) -> Schema:
    response: Schema = {"description": f"{HTTPStatus(answer.status).phrase}. {answer.meaning}"}
    if answer.headers:
        response["headers"] = {
            name: {"description": meaning, "required": True, "schema": {"type": "string"}}
            for name, meaning in answer.headers.items()
        }
    response["content"] = {answer.media: {"schema": answer.schema}}
    return response


def _responses() -> dict[str, Schema]:
    answers = [answer for routes in ROUTES.values() for route in routes for answer in route.operation.answers]
    return {answer.name: _response(answer) for answer in answers if answer.name}


def _schemas() -> dict[str, Schema]:
    found = components(REQUESTS, REPLIES)
    for (name, key), schema in FOREIGN.items():
        found[name]["properties"][key] = schema
    for name, description in DESCRIPTIONS.items():
        found[name]["description"] = description
    return found
