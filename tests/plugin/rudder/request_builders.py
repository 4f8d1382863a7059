"""Request objects for the tests of this room."""

from typing import Any


def request_object(**changes: Any) -> dict[str, Any]:
    """Return a request object that the router sends as meant, with some of its members changed."""
    sound = {
        "version": "1",
        "type": "REST",
        "method": "POST",
        "endpoint": "https://api.impact.com/Advertisers/IRlocalSID/Conversions",
        "endpointPath": "conversions",
        "headers": {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
        "params": {},
        "body": {"JSON": {}, "JSON_ARRAY": {}, "XML": {}, "FORM": {"OrderId": "o-1"}},
        "files": {},
        "userId": "",
    }
    return sound | changes


def form(**fields: Any) -> dict[str, Any]:
    """Return a request object whose form holds these fields."""
    return request_object(body={"FORM": fields})
