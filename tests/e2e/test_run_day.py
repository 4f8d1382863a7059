"""``make run``: the recorded day through the real processes, as a newcomer sees it."""

import html
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EVENTS = 3724
CANDIDATES = 279
"""Page Loads whose URL carries a click id, spoilt ones left out."""

VISITORS = 160
"""At least so many visitors come with a click id of their own."""

CONVERSIONS = 211
AFTER_LANDING = 82
"""Orders of visitors who came from a partner before; see the table in tools/make_day.py."""


PACKAGES = """
import sys, importlib.metadata
before = set(sys.modules)
sys.path.insert(0, "tools")
import run_day
packages = importlib.metadata.packages_distributions()
print(*{name for module in set(sys.modules) - before for name in packages.get(module.partition(".")[0], [])})
"""
"""Prints the names of all packages that the day's script imports."""


def free_ports(number: int) -> list[str]:
    """Ports that nobody listens on."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [str(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports


def run(*options: str) -> subprocess.CompletedProcess[str]:
    """Run the day once and return what was printed."""
    command = [sys.executable, str(ROOT / "tools" / "run_day.py"), "--once", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def rows_of(printed: str) -> list[tuple[str, int]]:
    """Words and number of each row of the table of events."""
    table = printed.partition("What became of the events")[2].partition("router")[0]
    rows = re.findall(r"^ +(\S.*?) +([\d,]+) *$", table, re.MULTILINE)
    return [(" ".join(words.split()), int(number.replace(",", ""))) for words, number in rows]


def test_the_day_adds_up() -> None:
    """Every event is answered, the table's rows add up to its total, and the stand-in refuses nothing."""
    router, operator, impact = free_ports(3)
    done = run("--port", router, "--operator-port", operator, "--impact-port", impact)
    rows = [number for _, number in rows_of(done.stdout)]

    assert done.returncode == 0, done.stderr
    assert len(rows) > 10
    assert rows[-1] == EVENTS
    assert sum(rows[:-1]) == EVENTS
    assert "answered 400" not in done.stdout
    told = " ".join(done.stdout.split())
    assert "211 Conversions answered 200" in told
    clicks = re.search(r"clicks (\d+) unique, (\d+) repeats", told)
    orders = re.search(r"(\d+) carried a click id, (\d+) were stitched to an earlier click, (\d+) have none", told)
    assert clicks is not None
    assert orders is not None
    assert CANDIDATES == sum(map(int, clicks.groups()))
    assert int(clicks[1]) >= VISITORS
    assert CONVERSIONS == sum(map(int, orders.groups()))
    assert int(orders[1]) + int(orders[2]) >= AFTER_LANDING
    assert words_of_picture() == [words for words, _ in rows_of(done.stdout)]


def words_of_picture() -> list[str]:
    """The rows of the table in the README's picture of the run: which events were clicks differs by a few."""
    drawn = (ROOT / "docs" / "images" / "make-run.svg").read_text(encoding="utf-8")
    lines: dict[str, str] = {}
    for height, text in re.findall(r'<text [^>]*y="([\d.]+)"[^>]*>([^<]*)</text>', drawn):
        lines[height] = f"{lines.get(height, '')} {html.unescape(text)}".replace("\xa0", " ")
    return [words for words, _ in rows_of("\n".join(lines.values()))]


def test_it_needs_nothing_of_the_developers() -> None:
    """``make run`` installs the packages of the runtime's lock alone, and these are all that the day imports."""
    done = subprocess.run([sys.executable, "-c", PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    lock = (ROOT / "requirements" / "runtime.lock").read_text(encoding="utf-8")
    installed = {canonical(name) for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}

    assert {"aiohttp", "rich"} <= {canonical(name) for name in done.stdout.split()}
    assert set() == {canonical(name) for name in done.stdout.split()} - installed - {"impact-plugin"}


def canonical(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_a_port_in_use_is_named() -> None:
    """Beside a stock transformer it says which port is taken, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        router, impact = free_ports(2)
        done = run("--port", router, "--operator-port", port, "--impact-port", impact)

    assert done.returncode == 2
    assert f"port {port} is in use" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_whatever_stops_it_nothing_is_left_behind(number: signal.Signals) -> None:
    """A closed terminal, an engine that stops a container, Ctrl-C: the ports are free again."""
    router, operator, impact = free_ports(3)
    words = ["--port", router, "--operator-port", operator, "--impact-port", impact]
    command = [sys.executable, str(ROOT / "tools" / "run_day.py"), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as day:
        assert day.stdout is not None
        while "Ctrl-C stops it" not in (line := day.stdout.readline()):
            assert line
        day.send_signal(number)
        code = day.wait(30)

    assert code == (0 if number == signal.SIGINT else 128 + number)
    for port in (router, operator, impact):
        socket.create_server(("127.0.0.1", int(port))).close()
