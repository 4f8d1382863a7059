"""The session state of a process that is killed: no decision changes, and no click that was answered is lost."""

import asyncio
import json
import random
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from impact_plugin.config.settings import StateSettings
from impact_plugin.store.base import SessionQuery
from impact_plugin.store.embedded import FILE, open_store
from tests import builders
from tests.builders import batch, moment

CAMPAIGN = [pytest.mark.campaign, pytest.mark.timeout(1800)]
SECONDS = 60.0
PATH = "/v0/destinations/impact"

Told = dict[str, tuple[str, str | None]]
"""By message: the label and the click id of its request."""


class Plugin:
    """A ``serve`` process that may be killed at any moment."""

    def __init__(self, process: Any, port: int) -> None:
        self.process = process
        self.port = port

    def ask(self, events: Sequence[dict[str, Any]]) -> Told:
        """One batch of a processor and what became of each of its events."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request("POST", PATH, batch(events), {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            assert response.status == 200, content
            return told(content)
        finally:
            connection.close()

    def ask_if_it_lives(self, events: Sequence[dict[str, Any]]) -> Told:
        """As above; nothing when the process was gone before the whole reply was here."""
        try:
            return self.ask(events)
        except (OSError, HTTPException):
            return {}

    def ask_and_kill(self, events: Sequence[dict[str, Any]], delay: Callable[[], None]) -> Told:
        """Send a batch, kill the process after the delay, and then look what came of it."""
        body = batch(events)
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", self.port), SECONDS) as connection:
            connection.sendall(head.encode() + body)
            delay()
            self.kill()
            received = b""
            try:
                while part := connection.recv(65536):
                    received += part
            except OSError:
                return {}
        headers, _, content = received.partition(b"\r\n\r\n")
        length = next((line for line in headers.split(b"\r\n") if line.lower().startswith(b"content-length:")), b":-1")
        return told(content) if len(content) == int(length.partition(b":")[2]) else {}

    def kill(self) -> None:
        """As the kernel does when memory is short: no last words."""
        self.process.send(signal.SIGKILL)
        assert self.process.wait() == -signal.SIGKILL


Serve = Callable[[], Plugin]


@pytest.fixture(name="serve")
def serve_fixture(launch: Callable[..., Any], free_port: Callable[[], int], until_up: Callable[[str], None]) -> Serve:
    """Lend a starter of services, all on the same state."""

    def serve() -> Plugin:
        port, operator_port = free_port(), free_port()
        process = launch("serve", SERVER__PORT=str(port), SERVER__OPERATOR_PORT=str(operator_port))
        until_up(f"http://127.0.0.1:{operator_port}/ready")
        return Plugin(process, port)

    return serve


@pytest.fixture(name="file")
def file_fixture(tmp_path: Path) -> Path:
    """Lend the path of the state's file."""
    return tmp_path / "var" / FILE


def told(content: bytes) -> Told:
    """What a reply says of each message."""
    return {
        one["metadata"]["messageId"]: (one["output"]["endpointPath"], one["output"]["body"]["FORM"].get("ClickId"))
        for one in json.loads(content)
    }


def landing(message: str, visitor: str, minute: int = 0) -> dict[str, Any]:
    """A page call that is a click, or a repeat of one; each visitor has a click id of the own."""
    return builders.landing(message, visitor, f"CLICK-{visitor}", **moment(minute))


def order(message: str, visitor: str, minute: int = 90) -> dict[str, Any]:
    """An order that carries no click id."""
    return builders.order(message, message, visitor, **moment(minute))


def journey(visitor: str, step: int = 1) -> list[dict[str, Any]]:
    """A landing, two reloads so many minutes apart, and an order.

    Without minutes between them the pages may come in any order: whichever is first is the click.
    """
    pages = [landing(f"{visitor} page {number}", visitor, number * step) for number in range(3)]
    return [*pages, order(f"{visitor} order", visitor)]


def expected(visitor: str) -> Told:
    """What a journey becomes when it comes in order."""
    click_id = f"CLICK-{visitor}"
    labels = ["clicks", "pageload", "pageload"]
    pages = {f"{visitor} page {number}": (label, click_id) for number, label in enumerate(labels)}
    return {**pages, f"{visitor} order": ("conversions", click_id)}


def clicks_by_visitor(found: Told) -> dict[str, int]:
    """How many clicks each visitor made."""
    visitors = {message.split(" ")[0] for message in found}
    return {
        visitor: sum(label == "clicks" for message, (label, _) in found.items() if message.startswith(f"{visitor} "))
        for visitor in visitors
    }


def count(file: Path, table: str) -> int:
    """Rows in the file, seen from outside."""
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=SECONDS)
    try:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - a name of ours
    finally:
        connection.close()


def grown(file: Path, rows: int) -> bool:
    """Whether a commit came since there were so many rows."""
    return count(file, "journal") > rows


def shrunk(file: Path, rows: int) -> bool:
    """Whether some of so many rows are gone."""
    return count(file, "journal") < rows


def wait_for(done: Callable[[], bool]) -> None:
    """Look as often as possible until it is so."""
    deadline = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < deadline, "it never came"


@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=CAMPAIGN)])
def test_a_kill_between_decision_and_reply(serve: Serve, file: Path, kills: int) -> None:
    """The decision is on disk, nobody has read it: the same batch, backwards and in pieces, gets that very decision."""
    plugin = serve()
    for number in range(kills):
        visitors = [f"v{number}-{one}" for one in range(20)]
        events = [one for visitor in visitors for one in journey(visitor)]
        before = count(file, "journal")
        plugin.ask_and_kill(events, partial(wait_for, partial(grown, file, before)))
        plugin = serve()
        found: Told = {}
        for at in range(len(events), 0, -7):
            found |= plugin.ask(events[max(0, at - 7) : at][::-1])

        assert {message: answer for visitor in visitors for message, answer in expected(visitor).items()} == found


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=CAMPAIGN)])
def test_kills_at_any_moment(serve: Serve, kills: int) -> None:
    """Whatever was read stays true; whatever was not is decided once, and stays so after further kills."""
    plugin, chance = serve(), random.Random(20260910)  # noqa: S311 - a seed, so that a failure can be found again
    asked: list[dict[str, Any]] = []
    known: Told = {}
    for number in range(kills):
        events = [one for at in range(30) for one in journey(f"v{number}-{at}", step=0)]
        pause = chance.uniform(0, 0.03)
        read = plugin.ask_and_kill(events, partial(time.sleep, pause))
        plugin = serve()
        asked += events
        # The reloads first: one of them is the click, unless the landing is remembered as it.
        found = plugin.ask(asked[::-1])

        assert {message: found[message] for message in {**known, **read}} == {**known, **read}
        assert {1} == set(clicks_by_visitor(found).values())
        assert {message.split(" ")[0] for message in found} == {
            click_id.removeprefix("CLICK-") for label, click_id in found.values() if label == "conversions" and click_id
        }
        known = found


def test_a_kill_between_reply_and_next_batch(serve: Serve) -> None:
    """The reload after the restart is no click, and the order gets the id."""
    plugin = serve()
    found: Told = {}
    for one in journey("v"):
        found |= plugin.ask([one])
        plugin.kill()
        plugin = serve()

    assert expected("v") == found
    assert expected("v") == plugin.ask(journey("v")[::-1])


@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=CAMPAIGN)])
def test_a_kill_while_many_batches_are_under_way(serve: Serve, kills: int) -> None:
    """What any of eight clients has read, of visitors that they share, is so after the restart."""
    plugin = serve()
    known: Told = {}
    for life in range(kills):
        read: list[Told] = []
        asking = partial(ask_on, plugin, life, read)
        with ThreadPoolExecutor(8) as clients:
            waiting = [clients.submit(asking, seed) for seed in range(8)]
            wait_for(partial(longer, read, 150))
            plugin.kill()
        assert [None] * 8 == [one.result() for one in waiting]
        # A client that came round again was told the same: its first answer is compared with every other one.
        for answer in read:
            assert {message: known.setdefault(message, one) for message, one in answer.items()} == answer
        plugin = serve()

        assert known == plugin.ask([again(message) for message in reversed(known)])
        assert set(clicks_by_visitor(known).values()) <= {0, 1}


def ask_on(plugin: Plugin, life: int, read: list[Told], client: int) -> None:
    """Send batches of a page and an order, by forty visitors in turn, until the process is gone."""
    for turn in range(2000):
        visitor = f"v{life}-{turn % 40}"
        answer = plugin.ask_if_it_lives([again(f"{visitor} page {client}"), again(f"{visitor} order {client}")])
        if not answer:
            return
        read.append(answer)


def longer(read: list[Told], size: int) -> bool:
    """Whether so many replies have been read."""
    return len(read) > size


def again(message: str) -> dict[str, Any]:
    """The event of a message; all pages are of one moment, so that it is arrival alone that decides."""
    visitor, kind, _ = message.split(" ")
    return landing(message, visitor) if kind == "page" else order(message, visitor)


def old_state(folder: Path) -> None:
    """A file full of what has run out long ago: some thousand commits and identities."""
    folder.mkdir()
    year = 365 * 86400.0

    async def write() -> None:
        settings = StateSettings(str(folder), durability="process")
        async with open_store(settings, lambda: time.time() - year) as store:
            digests = [number.to_bytes(15) for number in range(3000)]
            await store.decide([SessionQuery(one, 0, one, 1, "OLD", anonymous=one) for one in digests])

    asyncio.run(write())
    connection = sqlite3.connect(folder / FILE)
    with connection:
        [row] = connection.execute("SELECT generation, claims, answers FROM journal LIMIT 1").fetchall()
        connection.executemany("INSERT INTO journal (generation, claims, answers) VALUES (?, ?, ?)", [row] * 8000)
    connection.close()


@pytest.mark.parametrize("kills", [1, pytest.param(2, marks=CAMPAIGN)])
def test_kills_in_the_middle_of_expiry(serve: Serve, file: Path, kills: int) -> None:
    """While old generations leave the file, what is young stays in it."""
    old_state(file.parent)
    known: Told = {}
    for number in range(kills):
        plugin = serve()
        visitor = f"v{number}"
        known |= plugin.ask(journey(visitor))
        left = count(file, "journal")
        wait_for(partial(shrunk, file, left))
        plugin.kill()
        remaining = count(file, "journal")
        plugin = serve()

        assert 100 < remaining < left
        assert known == plugin.ask([one for at in range(number + 1) for one in journey(f"v{at}")[::-1]])
        plugin.kill()

    assert {message: answer for at in range(kills) for message, answer in expected(f"v{at}").items()} == known


def test_four_chunks_of_one_batch(serve: Serve) -> None:
    """The router sends them at the same time: one click for each visitor, and the same four get the same answers."""
    plugin = serve()
    visitors = [f"v{number}" for number in range(25)]
    chunks = [
        [again(f"{visitor} {kind} {number}") for visitor in visitors for kind in ("page", "order")]
        for number in range(4)
    ]

    def ask_all(plugin: Plugin, sent: list[list[dict[str, Any]]]) -> Told:
        gate = threading.Barrier(len(sent))

        def ask(chunk: list[dict[str, Any]]) -> Told:
            gate.wait(SECONDS)
            return plugin.ask(chunk)

        with ThreadPoolExecutor(len(sent)) as clients:
            return {message: one for found in clients.map(ask, sent) for message, one in found.items()}

    first = ask_all(plugin, chunks)
    second = ask_all(plugin, chunks[::-1])
    plugin.kill()
    after = ask_all(serve(), [chunk[::-1] for chunk in chunks])

    assert dict.fromkeys(visitors, 1) == clicks_by_visitor(first)
    # Each chunk has its landing before its order, so no order can have missed it.
    assert {("conversions", f"CLICK-{visitor}") for visitor in visitors} == {
        one for message, one in first.items() if " order " in message
    }
    assert first == second == after


def test_landing_repeat_and_order_in_chunks_of_their_own(serve: Serve) -> None:
    """An order may miss a landing that arrives in the same instant; then it goes without at every retry."""
    plugin = serve()
    found = []
    for attempt in range(3):
        with ThreadPoolExecutor(4) as clients:
            chunks = [[one] for visitor in ("v0", "v1", "v2") for one in journey(visitor, step=0)]
            if attempt:
                chunks.reverse()
            found.append({message: one for got in clients.map(plugin.ask, chunks) for message, one in got.items()})

    assert {"v0": 1, "v1": 1, "v2": 1} == clicks_by_visitor(found[0])
    assert found[0] == found[1] == found[2]


def test_a_second_service_on_the_same_state_is_refused(
    serve: Serve, launch: Callable[..., Any], free_port: Callable[[], int], tmp_path: Path
) -> None:
    """Exit code 2 and one line that names the ways out; the first service does not notice."""
    first = serve()
    second = launch("serve", SERVER__PORT=str(free_port()), SERVER__OPERATOR_PORT=str(free_port()))
    code = second.wait()
    [line] = second.log.splitlines()

    assert code == 2
    assert line.startswith("impact-plugin: ")
    assert str(tmp_path / "var") in line
    for way in ("stop it", "state.dir"):
        assert way in line
    assert expected("v") == first.ask(journey("v"))
