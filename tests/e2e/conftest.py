"""Processes and recordings for the tests from end to end."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

import make_day
from impact_plugin.testing.fake_impact import FakeImpact
from tests.e2e.ingest_site import IngestSite
from tests.e2e.processes import Process
from tests.waiting import SECONDS


@pytest.fixture(scope="session", name="make_day")
def make_day_fixture() -> ModuleType:
    """Lend the script that made the recorded day."""
    return make_day


@pytest.fixture(scope="session", name="day")
def day_fixture() -> list[dict[str, Any]]:
    """Lend the recorded day."""
    events: list[dict[str, Any]] = make_day.read_day()
    return events


@pytest.fixture(name="launch")
def launch_fixture(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Lend a launcher of our commands: ``launch("serve", SERVER__PORT="1")``."""
    running: list[Process] = []

    def launch(*words: str, **variables: str) -> Process:
        named = {f"IMPACT_PLUGIN__{name}": value for name, value in variables.items()}
        process = Process(tmp_path, list(words), {"IMPACT_PLUGIN__STATE__DIR": str(tmp_path / "var"), **named})
        running.append(process)
        return process

    yield launch
    for process in running:
        process.end()


@pytest.fixture(name="fake_impact")
def fake_impact_fixture(launch: Callable[..., Process]) -> str:
    """Lend the address of a ``fake-impact`` process."""
    line = launch("fake-impact", "--port", "0").line()
    found = re.search(r"http://\S+", line)
    assert found is not None
    return found[0]


@pytest.fixture(name="until_up")
def until_up_fixture() -> Callable[[str], None]:
    """Lend a wait for an address to answer."""

    def wait(url: str) -> None:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(URLError, ConnectionError), urlopen(url, timeout=1):  # noqa: S310 - a local address
                return
            time.sleep(0.02)
        pytest.fail(f"{url} did not answer")

    return wait


@pytest.fixture(name="site")
def site_fixture(
    tmp_path: Path, launch: Callable[..., Any], free_port: Callable[[], int], impact: FakeImpact
) -> IngestSite:
    """Lend a site that is to be started by the test; each file of tests has an impact.com of its own kind."""
    return IngestSite(tmp_path, launch, free_port, impact)
