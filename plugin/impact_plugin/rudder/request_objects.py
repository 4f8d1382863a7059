"""The request object that a transformer returns, and the HTTP request that the router makes of it.

Sources, all in https://github.com/rudderlabs/rudder-server: ``router/network.go`` and
``processor/integrations/integrations.go``.
"""

import gzip
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
from multidict import CIMultiDict
from yarl import URL

from impact_plugin.rudder.go import go_json, go_sprint
from impact_plugin.rudder.refusals import (
    BatchAborted,
    CorruptedForm,
    InvalidReply,
    MissingContentType,
    RouterPanic,
    SilentLoss,
    StalledForever,
)

_TEXT_BODIES = {"JSON_ARRAY": "batch", "XML": "payload", "GZIP": "payload"}

_MEDIA_TYPES = {
    "FORM": ("application/x-www-form-urlencoded",),
    "JSON": ("application/json",),
    "JSON_ARRAY": ("application/json",),
    "XML": ("application/xml", "text/xml"),
}


class _RequestObject(msgspec.Struct, rename="camel"):
    type: str | None = None
    endpoint: str | None = None
    endpoint_path: str | None = None
    method: str | None = None
    user_id: str | None = None
    headers: dict[str, str] | None = None
    params: dict[str, Any] | None = None
    body: dict[str, Any] | None = None
    files: dict[str, Any] | None = None


def check_request_object(raw: bytes, job_ids: Sequence[int] = ()) -> dict[str, Any]:
    """Return a request object (``output`` or ``batchedRequest``) decoded, if the router would send it as meant.

    Raises StalledForever if the router cannot decode it, SilentLoss if it would not send it, RouterPanic for an unknown
    body format, InvalidReply for a body that is not an object, BatchAborted for a text body without its text, and
    CorruptedForm and MissingContentType for what would arrive as something else.
    """
    try:
        parsed = msgspec.json.decode(raw, type=_RequestObject)
    except msgspec.DecodeError as error:
        raise StalledForever(f"the router cannot decode the request object, status 599: {error}", job_ids) from error
    if parsed.type != "REST":
        raise SilentLoss(f"a request of type {parsed.type!r} is reported as sent but is not", job_ids)
    if parsed.files:
        raise SilentLoss("a request with files is reported as sent but is not", job_ids)
    kind, body = _only_body(parsed.body or {}, job_ids)
    _refuse_corrupted(kind, body, parsed.params or {}, job_ids)
    _refuse_untyped(kind, parsed.headers or {}, job_ids)
    decoded: dict[str, Any] = msgspec.json.decode(raw)
    return decoded


def filled_body(body: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the format and content of the body that is not empty; ``("", {})`` if there is none."""
    return next(((kind, content) for kind, content in body.items() if content), ("", {}))


def wire_request(request: Mapping[str, Any]) -> tuple[URL, CIMultiDict[str], bytes]:
    """Return the URL, headers and body with which the router delivers a checked request object.

    FORM and query keys are sorted and spaces written as ``+``. The headers are those of the object and ``User-Agent:
    RudderLabs``.
    """
    kind, content = filled_body(request.get("body") or {})
    headers: CIMultiDict[str] = CIMultiDict({"Accept-Encoding": "gzip"})
    headers.update(request.get("headers") or {})
    headers.add("User-Agent", "RudderLabs")
    if kind == "GZIP":
        headers["Content-Encoding"] = "gzip"
    parts = urlsplit(request.get("endpoint") or "")
    query = parse_qsl(parts.query, keep_blank_values=True)
    query += [(key, _query_value(value)) for key, value in (request.get("params") or {}).items()]
    url = parts._replace(query=urlencode(sorted(query, key=lambda pair: pair[0]), safe="")).geturl()
    return URL(url, encoded=True), headers, _body_bytes(kind, content)


def _only_body(body: Mapping[str, Any], job_ids: Sequence[int]) -> tuple[str, dict[str, Any]]:
    for kind, content in body.items():
        if not isinstance(content, dict):
            raise InvalidReply(f"body.{kind} is not an object: 500 Invalid Router Payload", job_ids)
    filled = sorted(kind for kind, content in body.items() if content)
    if len(filled) != 1:
        # Of two, Go's random map order picks the one to send; without any, an empty request counts as delivered.
        raise SilentLoss(f"exactly one body format must be filled, not {filled}", job_ids)
    kind, content = filled_body(body)
    if kind not in {"FORM", "JSON", *_TEXT_BODIES}:
        raise RouterPanic(f"body format {kind} is not supported", job_ids)
    if kind in _TEXT_BODIES and not isinstance(content.get(_TEXT_BODIES[kind]), str):
        raise BatchAborted(f"body.{kind}.{_TEXT_BODIES[kind]} is not a string: 400 without an attempt", job_ids)
    return kind, content


def _refuse_corrupted(kind: str, body: Mapping[str, Any], params: Mapping[str, Any], job_ids: Sequence[int]) -> None:
    if kind == "FORM":
        for key, value in body.items():
            # The router prints small numbers as meant, but not the larger one that may come tomorrow.
            if not isinstance(value, str):
                raise CorruptedForm(f"FORM {key} would arrive as {go_sprint(value)!r}; write a string", job_ids)
    for key, value in params.items():
        if value is None or isinstance(value, list) or (_is_number(value) and "e" in go_sprint(value)):
            raise CorruptedForm(f"params {key} would arrive as {go_sprint(value)!r}; write a string", job_ids)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse_untyped(kind: str, headers: Mapping[str, str], job_ids: Sequence[int]) -> None:
    media_type = CIMultiDict(headers).get("Content-Type", "").partition(";")[0].strip().lower()
    wanted = _MEDIA_TYPES.get(kind, (media_type,))
    if not media_type or media_type not in wanted:
        raise MissingContentType(f"a {kind} body needs a Content-Type that fits it, not {media_type!r}", job_ids)


def _query_value(value: Any) -> str:
    return go_json(value).decode() if isinstance(value, dict) else go_sprint(value)


def _body_bytes(kind: str, content: Mapping[str, Any]) -> bytes:
    match kind:
        case "FORM":
            return urlencode(sorted(content.items())).encode()
        case "JSON":
            return go_json(content)
        case "JSON_ARRAY":
            return str(content["batch"]).encode()
        case "GZIP":
            return gzip.compress(str(content["payload"]).encode())
    return str(content.get("payload", "")).encode()
