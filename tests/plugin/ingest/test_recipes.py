"""Every recipe of the documentation works: its source, its requests over a socket, and what it says is delivered."""

import base64
import gzip
import hashlib
import hmac
import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import pytest
from standardwebhooks import Webhook

from impact_plugin.__main__ import app
from impact_plugin.config.settings import SpoolSettings, read_file
from impact_plugin.config.sources import Signature, Source, make_routing
from tests.plugin.ingest.ingest_shop import Shop

DOCS: Final = Path(__file__).parents[3] / "docs"
RECIPES: Final = sorted((DOCS / "recipes").glob("*.md"))
SENDERS: Final = ("fluent-bit", "jitsu", "kafka-connect", "posthog", "rudderstack-webhook", "segment", "vector")
NUMBERS: Final = ("nothing", "one", "two", "three")

_SOURCE: Final = re.compile(r"^```toml source\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TESTED: Final = re.compile(r"^```http tested\n(.*?)\n```\n+(.*?)(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
_VARIABLE: Final = re.compile(r"\$\{(\w+)\}")
_COMPUTED: Final = re.compile(r"\{([a-z0-9-]+)(?: ([^}]+))?\}")


class Sample(msgspec.Struct, frozen=True):
    """One request of a recipe, and what the page says is delivered for it."""

    page: str
    sources: str
    path: str
    headers: dict[str, str]
    body: bytes
    promise: str


def requests_of(page: Path) -> Iterator[Sample]:
    """The requests of a page."""
    text = page.read_text(encoding="utf-8")
    sources = "\n".join(_SOURCE.findall(text))
    for request, promise in _TESTED.findall(text):
        head, _, body = request.partition("\n\n")
        line, *headers = head.split("\n")
        method, path = line.split(" ")
        assert method == "POST", f"{page.name}: {line}"
        given = dict(header.split(": ", 1) for header in headers)
        yield Sample(page.stem, sources, path, given, body.encode(), promise.replace("\n", " "))


def environment_of(sources: str) -> dict[str, str]:
    """Values for the variables that the source blocks name: a Standard Webhooks secret for each secret, else a key."""
    found: dict[str, str] = {}
    for name in _VARIABLE.findall(sources):
        digest = hashlib.sha256(name.encode()).digest()
        found[name] = "whsec_" + base64.b64encode(digest).decode() if name.endswith("SECRET") else digest.hex()
    return found


def filled(text: str, environment: dict[str, str]) -> str:
    """The text with the variables' values."""
    return _VARIABLE.sub(lambda match: environment[match[1]], text)


def computed(name: str, argument: str, headers: dict[str, str], body: bytes, now: datetime) -> str:
    """What a sender computes for a header, by the vendors' own descriptions."""
    first = json.dumps(json.loads(body)[0], separators=(",", ":"), ensure_ascii=False) if body[:1] == b"[" else ""
    timed = f"{int(now.timestamp())}.".encode() + body
    makers: dict[str, Callable[[], str]] = {
        "time": lambda: str(int(now.timestamp())),
        "base64": lambda: base64.b64encode(argument.encode()).decode(),
        "hmac-sha1": lambda: hmac.new(argument.encode(), body, hashlib.sha1).hexdigest(),
        "hmac-sha1-of-first": lambda: hmac.new(argument.encode(), first.encode(), hashlib.sha1).hexdigest(),
        "hmac-sha256-of-time-and-body": lambda: hmac.new(argument.encode(), timed, hashlib.sha256).hexdigest(),
        "standard-webhooks": lambda: Webhook(argument).sign(headers["webhook-id"], now, body.decode()),
    }
    return makers[name]()


def headers_of(sample: Sample, environment: dict[str, str], now: datetime) -> dict[str, str]:
    """The headers as they go out."""
    found: dict[str, str] = {}
    for name, value in sample.headers.items():
        written = filled(value, environment)
        found[name] = _COMPUTED.sub(
            lambda match: computed(match[1], match[2] or "", sample.headers, sample.body, now), written
        )
    return found


def promised(sample: Sample) -> tuple[int, int, list[str], list[str]]:
    """How many Conversions and Page Loads a page says are delivered, the orders' ids and the click ids."""
    assert sample.promise.startswith("Delivered: "), f"{sample.page}: a tested request is followed by Delivered: ..."
    counts = {"Conversion": 0, "Page Load": 0}
    for number, kind in re.findall(r"\b(one|two|three) (Conversion|Page Load)s?\b", sample.promise):
        counts[kind] += NUMBERS.index(number)
    orders, clicks = (sorted(set(re.findall(rf"\b{kind}-\d+\b", sample.promise))) for kind in ("o", "c"))
    return counts["Conversion"], counts["Page Load"], orders, clicks


REQUESTS: Final = [sample for page in RECIPES for sample in requests_of(page)]


def test_every_sender_has_a_recipe_that_is_tested() -> None:
    """A page without a source or a tested request is a promise that nobody keeps."""
    untested = [
        page.name
        for page in RECIPES
        if not _SOURCE.search(page.read_text(encoding="utf-8")) or not any(one.page == page.stem for one in REQUESTS)
    ]

    assert list(SENDERS) == [page.stem for page in RECIPES]
    assert [] == untested


@pytest.mark.parametrize("sample", REQUESTS, ids=[f"{one.page}-{place}" for place, one in enumerate(REQUESTS)])
async def test_a_request_of_a_recipe_is_delivered(shop: Shop, sample: Sample) -> None:
    """With the page's source and headers it is answered 200, and impact.com gets and takes what the page says."""
    shop.environment = environment_of(sample.sources)
    shop.write(destination='eventTypeId = "56446"', more=sample.sources)
    await shop.start()
    now = datetime.fromtimestamp(time.time(), UTC)
    headers = headers_of(sample, shop.environment, now)
    body = gzip.compress(sample.body) if headers.get("Content-Encoding") == "gzip" else sample.body
    conversions, page_loads, orders, clicks = promised(sample)
    status, reply = await shop.post(filled(sample.path, shop.environment), body, headers)
    assert (200, True, 0) == (status, reply["success"], reply.get("rejected", 0)), reply
    await shop.delivered(conversions + page_loads)

    assert conversions == len(shop.impact.conversions)
    assert page_loads == len(shop.impact.page_loads)
    assert orders == sorted(call.form["OrderId"] for call in shop.impact.conversions)
    assert clicks == sorted({call.form["ClickId"] for call in shop.impact.calls if "ClickId" in call.form})
    assert all(call.accepted for call in shop.impact.calls)


@pytest.mark.parametrize("sample", REQUESTS, ids=[f"{one.page}-{place}" for place, one in enumerate(REQUESTS)])
async def test_a_request_of_a_recipe_is_refused_without_its_key(shop: Shop, sample: Sample) -> None:
    """What a page has the sender fill in is what lets it in."""
    shop.environment = environment_of(sample.sources)
    shop.write(more=sample.sources)
    await shop.start()
    kept = {name: value for name, value in sample.headers.items() if "$" not in value}
    status, _ = await shop.post(_VARIABLE.sub("wrong", sample.path), sample.body, kept)

    assert 401 == status
    assert [] == shop.impact.calls


@pytest.mark.parametrize("kind", [SpoolSettings, Source, Signature])
def test_the_page_of_ingest_names_every_key(kind: type[msgspec.Struct]) -> None:
    """An operator who meets a limit finds the setting that moves it."""
    text = (DOCS / "ingest.md").read_text(encoding="utf-8")
    names = {field.name for field in msgspec.structs.fields(kind)} - ({"name"} if kind is Source else set())

    assert [] == sorted(name for name in names if f"`{name}`" not in text and f"`spool.{name}`" not in text)


def test_the_example_of_the_configuration_can_be_used(tmp_path: Path) -> None:
    """The file on the page is read as it stands there, but for where the secret lies."""
    text = (DOCS / "ingest.md").read_text(encoding="utf-8")
    found = re.findall(r"^```toml configuration\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "impact_token").write_text("a-token\n", encoding="utf-8")
    file = tmp_path / "impact.toml"
    file.write_text(found[0].replace("/run/secrets", str(tmp_path)), encoding="utf-8")
    routing = make_routing(read_file(file), environment_of(found[0]))

    assert 1 == len(found)
    assert {"shop", "segment"} == set(routing.sources)
    assert {"eu", "us"} == set(routing.destinations)
    assert ["eu"] == [known.id for known in routing.destinations_of(routing.sources["segment"])]
    assert all(known.destination is not None for known in routing.destinations.values())


def command_lines() -> Iterator[list[str]]:
    """What the page of dead letters has an operator type."""
    for block in re.findall(
        r"^```sh\n(.*?)^```$", (DOCS / "dead-letters.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        for line in block.splitlines():
            program, *words = shlex.split(line, comments=True)
            if program == "impact-plugin":
                yield words


@pytest.mark.parametrize("words", list(command_lines()), ids=" ".join)
def test_the_commands_of_the_page_of_dead_letters_are_understood(words: list[str]) -> None:
    """Every command and option on the page is one of ours; none is carried out here."""
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)

    assert bound.arguments
