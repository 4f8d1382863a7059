"""What the OpenAPI document says of an endpoint: what it takes, its answers, and what each means to whoever asks."""

from typing import Any, Final, Literal

import msgspec

from impact_plugin.http.openapi.schemas import Schema

JSON: Final = "application/json"
TEXT: Final = "text/plain"


class DocumentedAnswer(msgspec.Struct, frozen=True):
    """A status, what it means to whoever asked, and its body and headers (name and meaning).

    Those that many operations have, have a name too.
    """

    status: int
    meaning: str
    schema: Schema
    headers: dict[str, str] = {}
    media: str = JSON
    name: str = ""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What the document says of a method on a path. ``secured`` where the keys of sources are asked for."""

    id: str
    summary: str
    description: str
    answers: tuple[DocumentedAnswer, ...]
    body: Schema | None = None
    example: Any = None
    parameters: tuple[Schema, ...] = ()
    secured: Literal["", "segment_api", "webhook"] = ""


def parameter(place: str, name: str, schema: Schema, description: str, **more: Any) -> Schema:
    """A parameter in the path, the query or a header."""
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": description,
        "schema": schema,
        **more,
    }
