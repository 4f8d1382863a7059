"""Which route a request has, whatever slashes and letter case its path comes with."""

import pytest

from impact_plugin.http.routes import ROUTES, WEBHOOK_METHODS, RouteTable, normal_path
from impact_plugin.protocols.segment_api import CALLS

ROUTER = RouteTable(ROUTES["router"], {"type": {"impact", "impact_eu"}})
INGEST = RouteTable(ROUTES["ingest"], {})


def found(table: RouteTable, method: str, path: str) -> str | None:
    """The handler of a request."""
    matched = table.find(method, normal_path(path))
    return None if matched is None else matched.route.handler


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a", "/a"),
        ("//a///b/", "/a/b"),
        ("/", "/"),
        ("//", "/"),
        ("", "/"),
        ("/a//", "/a"),
    ],
)
def test_slashes_too_many_do_not_matter(path: str, expected: str) -> None:
    """The router puts its URL setting before each path, with a slash at its end or without."""
    assert expected == normal_path(path)


@pytest.mark.parametrize(
    "path",
    ["/v0/destinations/impact", "//v0/destinations/Impact/", "/V0/Destinations/IMPACT", "/v0/destinations/impact_eu"],
)
def test_a_destination_type_is_ours_in_any_case(path: str) -> None:
    """The label of the metrics is in small letters, and as bounded as the setting."""
    matched = ROUTER.find("POST", normal_path(path))

    assert matched is not None
    assert "transform_for_processor" == matched.route.handler
    assert normal_path(path).lower() == matched.path


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v0/destinations/impact"),
        ("POST", "/v0/destinations/marketo"),
        ("POST", "/v0/destinations/impact/proxy/x"),
        ("POST", "/v2/destinations/impact/proxy"),
        ("HEAD", "/health"),
        ("POST", "/"),
        ("GET", "/features/x"),
    ],
)
def test_what_is_not_ours_has_no_route(method: str, path: str) -> None:
    """It goes to the stock transformer."""
    assert found(ROUTER, method, path) is None


@pytest.mark.parametrize("name", CALLS)
def test_every_call_has_its_path(name: str) -> None:
    """Under /v1, by POST, and nowhere else."""
    assert "take_call" == found(INGEST, "POST", f"/v1/{name}")
    assert [None, None, None] == [
        found(INGEST, "GET", f"/v1/{name}"),
        found(INGEST, "POST", f"/v2/{name}"),
        found(INGEST, "POST", f"/v1/{name}/x"),
    ]


@pytest.mark.parametrize("path", ["/", "", "/v1", "/track", "/v1/unknown", "/batch/x", "/v1/batch/batch", "/webhook"])
def test_other_paths_have_no_route(path: str) -> None:
    """They are answered 404."""
    assert found(INGEST, "POST", path) is None


def test_a_batch_may_go_without_a_version() -> None:
    """As some SDKs have it."""
    assert ["take_call"] * 2 == [found(INGEST, "POST", path) for path in ("/batch", "/Batch/")]


@pytest.mark.parametrize("method", WEBHOOK_METHODS)
def test_a_webhooks_parameters_are_as_they_came(method: str) -> None:
    """A key has capital letters, and may have slashes; it may be missing too."""
    alone = INGEST.find(method, "/Webhook/Shop")
    with_token = INGEST.find(method, "/WEBHOOK/shop/A-key/With/slashes")

    assert alone is not None
    assert with_token is not None
    assert {"source": "Shop"} == alone.parameters
    assert {"source": "shop", "token": "A-key/With/slashes"} == with_token.parameters


def test_health_is_answered_to_head_where_a_route_says_so() -> None:
    """By the port for senders; on the router's it is another request."""
    assert ["health", "health"] == [found(INGEST, method, "/health") for method in ("GET", "HEAD")]
