"""The OpenAPI document of all endpoints, generated from the routes and the Structs of the bodies.

https://spec.openapis.org/oas/v3.1.1.html
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

import msgspec

from impact_plugin import __version__
from impact_plugin.config.settings import Settings
from impact_plugin.http.openapi.bodies import DESCRIPTIONS, FOREIGN, REQUESTS, RESPONSES
from impact_plugin.http.openapi.operation import JSON, DocumentedResponse, Operation
from impact_plugin.http.openapi.schemas import Schema, components
from impact_plugin.http.routes import ROUTES, PortName

PORTS: Final[dict[PortName, str]] = {
    "router": (
        "The transformer's API for the router. It has no authentication: make sure that only the router can reach it. "
        "Repeated slashes and the letter case of paths are ignored. Every request that is not described here is passed "
        "through to the upstream transformer and its response back, unchanged; without an upstream the response is 503."
    ),
    "operator": "For operators and their tools. It has no authentication: do not expose it.",
    "ingest": (
        "For senders of events; open only if the configuration has sources. Requests with an unknown key are refused, "
        "and a 200 means that the events are durable. For the places where a request can carry its key see "
        "docs/ingest.md."
    ),
}
"""The ports, which are the tags of the document, and their descriptions."""

SECURITY_SCHEMES: Final[dict[str, Schema]] = {
    "basicKey": {
        "type": "http",
        "scheme": "basic",
        "description": "The key as the user name; for webhooks also as the password.",
    },
    "bearerKey": {"type": "http", "scheme": "bearer", "description": "The key."},
    "headerKey": {"type": "apiKey", "in": "header", "name": "X-Write-Key", "description": "The key."},
    "queryKey": {"type": "apiKey", "in": "query", "name": "token", "description": "The key; webhooks only."},
}

SECURED: Final[dict[str, list[Schema]]] = {
    "": [],
    # {} stands for none of them: the key is in the body (writeKey) or the path, or the request is signed.
    "segment_api": [{"basicKey": []}, {"bearerKey": []}, {"headerKey": []}, {}],
    "webhook": [{"basicKey": []}, {"bearerKey": []}, {"headerKey": []}, {"queryKey": []}, {}],
}


def document(settings: Settings | None = None) -> dict[str, Any]:
    """Return the document for a service with these settings, by default the default settings."""
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
    """Return the document as the service serves it."""
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
    """Return the operation; the caller adds its ports, because several ports can share one."""
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
    described["responses"] = {str(one.status): _referred(one) for one in operation.responses}
    described["servers"] = []
    return described


def _parameter(parameter: Schema, types: Iterable[str]) -> Schema:
    """Return the parameter; the settings define the destination types."""
    if parameter["name"] != "type":
        return parameter
    return {**parameter, "schema": {"type": "string", "enum": list(types)}}


def _referred(documented: DocumentedResponse) -> Schema:
    return {"$ref": f"#/components/responses/{documented.name}"} if documented.name else _response(documented)


def _response(documented: DocumentedResponse) -> Schema:
    response: Schema = {"description": f"{HTTPStatus(documented.status).phrase}. {documented.meaning}"}
    if documented.headers:
        response["headers"] = {
            name: {"description": meaning, "required": True, "schema": {"type": "string"}}
            for name, meaning in documented.headers.items()
        }
    response["content"] = {documented.media: {"schema": documented.schema}}
    return response


def _responses() -> dict[str, Schema]:
    found = [one for routes in ROUTES.values() for route in routes for one in route.operation.responses]
    return {one.name: _response(one) for one in found if one.name}


def _schemas() -> dict[str, Schema]:
    found = components(REQUESTS, RESPONSES)
    for (name, key), schema in FOREIGN.items():
        found[name]["properties"][key] = schema
    for name, description in DESCRIPTIONS.items():
        found[name]["description"] = description
    return found
