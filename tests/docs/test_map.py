"""The map is true: events pass the files that it lists, in its order, and each file is reached by an import."""

import asyncio
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

import aiohttp
import grimp
import msgspec
import pytest

from impact_plugin.app import Service, run_service
from impact_plugin.config.settings import load_settings
from impact_plugin.config.sources import RoutingFile
from impact_plugin.testing import FakeImpact

ROOT: Final = Path(__file__).parents[2]
SAMPLES: Final = ROOT / "tests" / "samples" / "rudderstack"
SOURCES: Final = (ROOT / "plugin" / "impact_plugin", ROOT / "transformers")
KEY: Final = "the-key-of-the-map"
SECONDS: Final = 15.0
ROOTS: Final = {"app.py"}
"""The composition root, which hands most parts to each other."""


class Stop(NamedTuple):
    """One row of the map."""

    file: str
    function: str


VERDICT: Final = Stop("delivery/policy.py", "judge")
"""Where a delivery ends."""


def ways() -> dict[str, list[Stop]]:
    """The tables of the page by the first word of their headings."""
    text = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (\w+).*?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    stops = {name: re.findall(r"^\| `([\w/]+\.py)` \| `(\w+)` \|", body, re.MULTILINE) for name, body in sections}
    return {name: [Stop(*found) for found in rows] for name, rows in stops.items() if rows}


def not_on_the_map() -> tuple[str, ...]:
    """Files, and folders with a slash, that the page names in its last section."""
    text = (ROOT / "docs" / "map.md").read_text(encoding="utf-8").partition("## Not on the map")[2]
    return tuple(re.findall(r"`([\w/]+(?:/|\.py))`", text))


WAYS: Final = ways()


def path_of(file: str) -> Path:
    """Where a file of the map is."""
    return next(folder / file for folder in SOURCES if (folder / file).exists())


def module_of(file: str) -> str:
    """Its name when it is imported."""
    name = file.removesuffix(".py").replace("/", ".")
    return name if name.startswith("impact_transformers.") else f"impact_plugin.{name}"


@pytest.fixture(scope="session", name="graph")
def graph_fixture() -> grimp.ImportGraph:
    """All imports of both packages."""
    return grimp.build_graph("impact_plugin", "impact_transformers", cache_dir=None)


@pytest.mark.parametrize("way", WAYS)
def test_no_file_is_passed_twice_and_each_exists(way: str) -> None:
    """A way that comes back to a file it has left is hard to follow."""
    files = [stop.file for stop in WAYS[way]]

    assert len(files) > 5
    assert len(set(files)) == len(files)
    assert all(path_of(file).is_file() for file in files)


@pytest.mark.parametrize("way", WAYS)
def test_each_file_is_imported_by_one_before_it(way: str, graph: grimp.ImportGraph) -> None:
    """Or by the composition root, which made the earlier ones know it; names of a package may be imported from it."""
    files = [stop.file for stop in WAYS[way]]

    for number, file in enumerate(files):
        before = [module_of(one) for one in (*ROOTS, *files[:number])]
        assert any(imports(graph, one, module_of(file)) for one in before), file


def imports(graph: grimp.ImportGraph, importer: str, imported: str) -> bool:
    """Whether the module imports the other one, or its package, which does."""
    package = imported.rpartition(".")[0]
    if graph.direct_import_exists(importer=importer, imported=imported):
        return True
    return all(
        graph.direct_import_exists(importer=one, imported=other)
        for one, other in ((importer, package), (package, imported))
    )


@asynccontextmanager
async def running(folder: Path, impact: FakeImpact) -> AsyncIterator[Service]:
    """The service with a source and a destination, in this process."""
    file = folder / "impact.toml"
    file.write_text(
        f"""
[server]
port = 0
operator_port = 0
ingest_port = 0
[impact]
tracking_url = "{impact.url}"
api_url = "{impact.url}"
[state]
dir = "{folder / "var"}"
[sources.shop]
keys = ["{KEY}"]
[destinations.eu]
accountSID = "IRlocalSID"
apiKey = "test-token-secret"
campaignId = "23224"
""",
        encoding="utf-8",
    )
    async with run_service(load_settings(file, {}), {}, routing=RoutingFile(file, {})) as service:
        yield service


def request_of(way: str, service: Service, impact: FakeImpact) -> tuple[str, bytes, dict[str, str]]:
    """URL, body and headers of the event that goes this way."""
    json = {"Content-Type": "application/json"}
    if way == "Processor":
        body = (SAMPLES / "processor_request_plain.json").read_bytes()
        return f"{service.url}/v0/destinations/impact", body, json
    if way == "Proxy":
        request = msgspec.json.decode((SAMPLES / "proxy_v1_request.json").read_bytes())
        request["endpoint"] = f"{impact.url}/Advertisers/IRlocalSID/Conversions"
        request["body"]["FORM"] = {"OrderId": "o-1", "CampaignId": "23224", "EventTypeId": "56446"}
        return f"{service.url}/v1/destinations/impact/proxy", msgspec.json.encode(request), json
    order = {"order_id": "o-1", "total": 3, "currency": "EUR"}
    event = {
        "event": "Order Completed",
        "messageId": "m-1",
        "anonymousId": "a-1",
        "context": {"traits": {"email": "ada@shop.example"}},
        "properties": order,
    }
    return f"{service.ingest_url}/v1/track", msgspec.json.encode(event), {"Authorization": f"Bearer {KEY}"}


def watcher(passed: dict[Stop, None], judged: asyncio.Event) -> Callable[[FrameType, str, Any], None]:
    """A profile function that notes which functions of ours are entered, in the order of their first time."""
    known = {str(path): path.relative_to(folder).as_posix() for folder in SOURCES for path in folder.rglob("*.py")}

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and (file := known.get(frame.f_code.co_filename)) is not None:
            stop = Stop(file, frame.f_code.co_name)
            passed.setdefault(stop)
            if stop == VERDICT:
                judged.set()

    return note


@contextmanager
def watched(note: Callable[[FrameType, str, Any], None]) -> Iterator[None]:
    """Call ``note`` for everything that this thread does, and the threads that it starts."""
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


async def passed_by(way: str, folder: Path) -> list[Stop]:
    """The functions that were entered from the request to the verdict, or to the answer where nothing is delivered."""
    passed: dict[Stop, None] = {}
    judged = asyncio.Event()
    async with FakeImpact() as impact, aiohttp.ClientSession() as http:
        with watched(watcher(passed, judged)):
            async with running(folder, impact) as service, asyncio.timeout(SECONDS):
                url, body, headers = request_of(way, service, impact)
                passed.clear()
                async with http.post(url, data=body, headers=headers) as response:
                    assert response.status == 200
                if way != "Processor":
                    await judged.wait()
                return list(passed)


@pytest.mark.parametrize("way", WAYS)
async def test_an_event_passes_the_files_in_this_order(way: str, tmp_path: Path) -> None:
    """A real one, through a running service, and no others than the page names."""
    passed = await passed_by(way, tmp_path)
    files = {stop.file for stop in passed if not stop.file.startswith(("testing/", *not_on_the_map()))}

    assert WAYS[way] == [stop for stop in passed if stop in WAYS[way]]
    assert set() == files - {stop.file for stop in WAYS[way]}
