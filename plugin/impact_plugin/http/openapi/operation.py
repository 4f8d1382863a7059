"""Declarations of an endpoint for the OpenAPI document: its parameters, body and responses."""

from typing import Any, Final, Literal

import msgspec

from impact_plugin.http.openapi.schemas import Schema

JSON: Final = "application/json"
TEXT: Final = "text/plain"


class DocumentedResponse(msgspec.Struct, frozen=True):
    """A status, what it means to the client, and its body and headers (name and meaning).

    A response that several operations share has a ``name``.
    """

    status: int
    meaning: str
    schema: Schema
    headers: dict[str, str] = {}
    media: str = JSON
    name: str = ""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a method on a path. ``secured`` names the API whose keys it requires."""

    id: str
    summary: str
    description: str
    responses: tuple[DocumentedResponse, ...]
    body: Schema | None = None
    example: Any = None
    parameters: tuple[Schema, ...] = ()
    secured: Literal["", "segment_api", "webhook"] = ""


def parameter(place: str, name: str, schema: Schema, description: str, **more: Any) -> Schema:
    """Return a parameter in the path, the query or a header."""
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": description,
        "schema": schema,
        **more,
    }
