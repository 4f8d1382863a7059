"""impact.com's answers as HTTP responses in JSON, XML or text."""

import html
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

import msgspec
from aiohttp import web

_JSON_HEADERS: Final = MappingProxyType({"Content-Type": "application/json"})


class FakeAnswer(msgspec.Struct, frozen=True):
    """An answer: its HTTP status (0 for none), what its body holds, and whether it accepts the call."""

    status: int
    content: Any
    accepted: bool = False
    headers: Mapping[str, str] = MappingProxyType({})


def failure(message: str, field: str | None = None, detail: str = "") -> dict[str, object]:
    """Return the brand API's general error: https://integrations.impact.com/impact-brand/reference/errors ."""
    content: dict[str, object] = {"Status": "ERROR", "Message": message}
    return content if field is None else {**content, "Errors": [{"Field": field, "Message": detail}]}


def phrase(status: int) -> str:
    """Return HTTP's phrase for a status, or a made-up one for a status that HTTP does not know."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def json_response(status: int, content: object) -> web.Response:
    """Return a JSON response."""
    return web.Response(status=status, body=msgspec.json.encode(content), headers=_JSON_HEADERS)


def render(answer: FakeAnswer, *, xml: bool) -> web.Response:
    """Return the response for an answer: a text as it is, everything else as JSON or XML."""
    if answer.status == 0:
        return web.Response()
    if isinstance(answer.content, str):
        body, content_type = answer.content.encode(), "text/plain; charset=utf-8"
    elif xml:
        content = msgspec.to_builtins(answer.content)
        body, content_type = _xml("ImpactRadiusResponse", content).encode(), "application/xml; charset=utf-8"
    else:
        body, content_type = msgspec.json.encode(answer.content), "application/json"
    own = {} if any(name.lower() == "content-type" for name in answer.headers) else {"Content-Type": content_type}
    return web.Response(status=answer.status, body=body, headers={**own, **answer.headers})


def _xml(tag: str, content: object) -> str:
    """Return decoded JSON as impact.com's XML: capitalised tags, and a list of ``Error`` inside ``Errors``."""
    match content:
        case dict():
            inner = "".join(_xml(f"{name[:1].upper()}{name[1:]}", value) for name, value in content.items())
        case list() | tuple():
            inner = "".join(_xml(tag.removesuffix("s"), value) for value in content)
        case None:
            inner = ""
        case bool():
            inner = "true" if content else "false"
        case _:
            # XML cannot express control characters, and the name of a parameter may hold some.
            inner = html.escape("".join(char if char.isprintable() else "?" for char in str(content)))
    return f"<{tag}>{inner}</{tag}>"
