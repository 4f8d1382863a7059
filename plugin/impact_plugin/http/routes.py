"""The routes of the three ports: these tables dispatch requests and define the OpenAPI document."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from impact_plugin.http.openapi import ingest_operations, operator_operations, router_operations
from impact_plugin.http.openapi.operation import Operation
from impact_plugin.protocols.segment_api import BATCH, CALLS

PortName: TypeAlias = Literal["router", "operator", "ingest"]

WEBHOOK_METHODS: Final = ("POST", "PUT", "PATCH")

_SLASHES: Final = re.compile(r"/{2,}")
_PARAMETER: Final = re.compile(r"\\\{(\w+)\\\}")
_VALUES: Final = {"token": ".+"}
"""Patterns of parameters that may span several segments of the path: a key may contain slashes."""


class HttpRoute(msgspec.Struct, frozen=True):
    """A method on a path, its description, and the name of its request handler in the port's application.

    A parameter in the path is a name in braces. ``heads`` adds HEAD.
    """

    method: str
    path: str
    handler: str
    operation: Operation
    heads: bool = False


ROUTES: Final[dict[PortName, tuple[HttpRoute, ...]]] = {
    "router": (
        HttpRoute("GET", "/health", "health", operator_operations.HEALTH),
        HttpRoute("GET", "/ready", "ready", operator_operations.READY),
        HttpRoute("GET", "/version", "version", operator_operations.VERSION),
        HttpRoute("GET", "/features", "features", router_operations.FEATURES),
        HttpRoute(
            "POST",
            "/v0/destinations/{type}",
            "transform_for_processor",
            router_operations.TRANSFORM_FOR_PROCESSOR,
        ),
        HttpRoute("POST", "/routerTransform", "transform_for_router", router_operations.TRANSFORM_FOR_ROUTER),
        HttpRoute("POST", "/batch", "transform_for_batch", router_operations.TRANSFORM_FOR_BATCH),
        HttpRoute("POST", "/deleteUsers", "delete_users", router_operations.DELETE_USERS),
        HttpRoute("POST", "/v0/destinations/{type}/proxy", "deliver_v0", router_operations.DELIVER_V0),
        HttpRoute("POST", "/v1/destinations/{type}/proxy", "deliver_v1", router_operations.DELIVER_V1),
    ),
    "operator": (
        HttpRoute("GET", "/health", "health", operator_operations.HEALTH, heads=True),
        HttpRoute("GET", "/ready", "ready", operator_operations.READY, heads=True),
        HttpRoute("GET", "/version", "version", operator_operations.VERSION, heads=True),
        HttpRoute("GET", "/metrics", "metrics", operator_operations.METRICS, heads=True),
        HttpRoute("GET", "/debug/limits", "debug_limits", operator_operations.DEBUG_LIMITS, heads=True),
        HttpRoute("POST", "/forget", "forget", operator_operations.FORGET),
        # A HEAD would start a recording whose body nobody receives.
        HttpRoute("GET", "/record", "record", operator_operations.RECORD),
        HttpRoute("GET", "/openapi.json", "openapi", operator_operations.OPENAPI, heads=True),
    ),
    "ingest": (
        HttpRoute("GET", "/health", "health", operator_operations.HEALTH, heads=True),
        *(
            HttpRoute("POST", f"/v1/{word}", "take_call", ingest_operations.call_operation(word, call))
            for word, call in CALLS.items()
        ),
        # The router's port has a /batch too, and OpenAPI allows one operation for a path; the trailing slash is
        # ignored.
        HttpRoute("POST", "/batch/", "take_call", ingest_operations.call_operation("batch_unversioned", BATCH)),
        *(
            HttpRoute(
                method,
                "/webhook/{source}/{token}" if with_token else "/webhook/{source}",
                "take_webhook",
                ingest_operations.webhook_operation(method, with_token=with_token),
            )
            for with_token in (False, True)
            for method in WEBHOOK_METHODS
        ),
    ),
}


class MatchedRoute(msgspec.Struct, frozen=True):
    """The route of a request: its path in lower case, and the parameters as received."""

    route: HttpRoute
    path: str
    parameters: Mapping[str, str]


class RouteTable:
    """Finds the route of a request, ignoring the letter case and superfluous slashes of its path."""

    def __init__(self, routes: Sequence[HttpRoute], choices: Mapping[str, Collection[str]]) -> None:
        """``choices`` has the values of a parameter, in lower case; other parameters accept every value."""
        self._fixed: dict[tuple[str, str], MatchedRoute] = {}
        self._open: list[tuple[re.Pattern[str], HttpRoute]] = []
        for route in routes:
            for path in _filled(normal_path(route.path).lower(), choices):
                if "{" in path:
                    self._open.append((_pattern(path), route))
                for method in (route.method, *(["HEAD"] if route.heads else [])):
                    self._fixed[method, path] = MatchedRoute(route, path, {})

    def find(self, method: str, path: str) -> MatchedRoute | None:
        """Return the route of a request with this :func:`normal_path`, None if there is none."""
        found = self._fixed.get((method, path.lower()))
        if found is not None:
            return found
        for pattern, route in self._open:
            match = pattern.fullmatch(path)
            if match is not None and route.method == method:
                return MatchedRoute(route, route.path, match.groupdict())
        return None


def normal_path(path: str) -> str:
    """Return the path without repeated and trailing slashes, which the router's URL setting may produce."""
    return _SLASHES.sub("/", path).rstrip("/") or "/"


def _filled(path: str, choices: Mapping[str, Collection[str]]) -> list[str]:
    """Return the path once for every combination of its parameters' choices."""
    found = [path]
    for name, values in choices.items():
        if f"{{{name}}}" in path:
            found = [one.replace(f"{{{name}}}", value) for one in found for value in values]
    return found


def _pattern(path: str) -> re.Pattern[str]:
    """Return the path as a regular expression with a group for each parameter."""
    escaped = re.escape(path)
    pattern = _PARAMETER.sub(lambda found: f"(?P<{found[1]}>{_VALUES.get(found[1], '[^/]+')})", escaped)
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)
