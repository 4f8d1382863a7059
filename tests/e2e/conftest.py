"""Processes and recordings for the tests from end to end."""

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from impact_plugin.testing.fake_impact import FakeImpact
from tests.e2e.ingest_site import IngestSite

TOOLS: Final = Path(__file__).parents[2] / "tools"
SECONDS: Final = 15.0


@pytest.fixture(scope="session", name="make_day")
def make_day_fixture() -> ModuleType:
    """Lend the script that made the recorded day: tools are no package."""
    spec = importlib.util.spec_from_file_location("make_day_end_to_end", TOOLS / "make_day.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", name="day")
def day_fixture(make_day: ModuleType) -> list[dict[str, Any]]:
    """Lend the recorded day."""
    events: list[dict[str, Any]] = make_day.read_day()
    return events


class Process:
    """A command of ours as a process of its own, its standard error in a file."""

    def __init__(self, folder: Path, words: list[str], environment: dict[str, str]) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("IMPACT_")}
        self._log = folder / f"{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "impact_plugin", *words],
                env={**kept, **environment},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What stands on standard error so far."""
        return self._log.read_text(encoding="utf-8")

    def line(self) -> str:
        """The next line on standard output."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        return self._process.wait(SECONDS)

    def end(self) -> None:
        """Make sure that nothing stays behind."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()


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
