"""Requests made of the OpenAPI document, right ones and wrong ones, to a service that runs: it keeps its word."""

import asyncio
import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
import requests
import schemathesis
from aiohttp import encode_basic_auth
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from impact_plugin.http.openapi.document import document
from impact_plugin.http.openapi.operation import JSON
from impact_plugin.http.routes import ROUTES, HttpRoute, PortName
from impact_plugin.testing.fake_impact import FakeImpact
from tests.builders import TOKEN
from tests.e2e.ingest_site import KEY, IngestSite
from tests.properties import tried

AnyCase = Case[Any]

EXAMPLES: Final = 12
SECONDS: Final = 30.0
CHECKS: Final = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
DESCRIBED: Final = schemathesis.openapi.from_dict(document())


class Site:
    """A running service, and requests to it."""

    def __init__(self, urls: dict[PortName, str], impact_url: str, session: requests.Session) -> None:
        self._urls = urls
        self._impact_url = impact_url
        self._session = session

    def deliver(self) -> None:
        """Have a request delivered, so that there is something to tell about the limits."""
        (route,) = [one for one in ROUTES["router"] if one.operation.id == "deliverV0"]
        assert self.hears("router", example_of(route), known=True) == 200

    def hears(self, port: PortName, case: AnyCase, *, known: bool) -> int:
        """Send the request, of somebody the service knows or not, and hold the answer against the document."""
        if case.path == "/record":
            _shorten(case)
        if known:
            self._introduce(case)
        response = case.call(self._urls[port], self._session, timeout=SECONDS, allow_redirects=False)
        assert response.status_code != 500, case.as_curl_command()
        case.validate_response(response, checks=CHECKS)
        return int(response.status_code)

    def _introduce(self, case: AnyCase) -> None:
        """Give the request what cannot be guessed: a source and its key, an address that may be called."""
        if "source" in case.path_parameters:
            case.path_parameters["source"] = "shop"
        if "token" in case.path_parameters:
            case.path_parameters["token"] = KEY
        case.headers["Authorization"] = f"Bearer {KEY}"
        if case.path.endswith("/proxy") and isinstance(case.body, dict) and "endpoint" in case.body:
            case.body["endpoint"] = f"{self._impact_url}/Advertisers/IRtest/Conversions"
            if isinstance(headers := case.body.get("headers"), dict):
                headers["Authorization"] = encode_basic_auth("IRtest", TOKEN)


def _shorten(case: AnyCase) -> None:
    """Have a recording done at once: a time that may be asked for becomes a short one."""
    asked = case.query.get("seconds", 60.0)
    first = asked[0] if isinstance(asked, list) and asked else asked
    with suppress(TypeError, ValueError):
        if float(first) > 0:
            case.query["seconds"] = min(float(first), 0.02)


@pytest.fixture(name="site")
def site_fixture(
    tmp_path: Path, launch: Callable[..., Any], free_port: Callable[[], int], fake_impact: str
) -> Iterator[Site]:
    """Lend a service with a source, that delivers to a stand-in for impact.com."""
    service = IngestSite(tmp_path, launch, free_port, cast("FakeImpact", SimpleNamespace(url=fake_impact)))
    process = asyncio.run(service.start(DELIVERY__TIMEOUT_SECONDS="1"))
    with requests.Session() as session:
        yield Site(
            {"router": service.router_url, "operator": service.operator_url, "ingest": service.url},
            fake_impact,
            session,
        )
    assert "request_fault" not in process.log


def described(route: HttpRoute) -> APIOperation[Any, Any, Any, Any]:
    """The route as schemathesis knows it."""
    found: APIOperation[Any, Any, Any, Any] = DESCRIBED[route.path][route.method]
    return found


def cases(route: HttpRoute) -> st.SearchStrategy[AnyCase]:
    """Requests that are as described, and those that are not where that is possible."""
    right = described(route).as_strategy()
    if route.operation.body is None and not route.operation.parameters:
        return right
    return right | described(route).as_strategy(generation_mode=GenerationMode.NEGATIVE)


def example_of(route: HttpRoute) -> AnyCase:
    """The request that stands in the document."""
    values = {"type": "impact", "source": "shop", "token": KEY}
    named = {one["name"]: values[one["name"]] for one in route.operation.parameters if one["in"] == "path"}
    body = {} if route.operation.body is None else {"body": copy.deepcopy(route.operation.example), "media_type": JSON}
    return described(route).Case(path_parameters=named, **body)


@pytest.mark.parametrize("port", ["router", "ingest", "operator"])
def test_the_examples_are_taken(site: Site, port: PortName) -> None:
    """Whoever copies a request of the document gets the answer for when all is well."""
    site.deliver()
    for route in ROUTES[port]:
        assert site.hears(port, example_of(route), known=True) == 200, route.operation.id


@pytest.mark.hypothesis
@pytest.mark.parametrize("port", ["router", "ingest", "operator"])
def test_answers_are_as_documented(site: Site, port: PortName) -> None:
    """Whatever comes: never a 500, only documented statuses, and bodies, headers and types as described for them."""
    site.deliver()
    for route in ROUTES[port]:
        ask_anything(site, port, route)


def ask_anything(site: Site, port: PortName, route: HttpRoute) -> None:
    """Try an operation with many requests; with one, where there is nothing to vary."""
    many = EXAMPLES if route.operation.body is not None or route.operation.parameters else 1

    @tried(many, suppress_health_check=list(HealthCheck))
    @given(case=cases(route), known=st.booleans())
    def ask(case: AnyCase, *, known: bool) -> None:
        site.hears(port, case, known=known)

    ask()
