"""``impact-plugin forget``: whom it asks, what it opens, what it says, and when it says that not all was reached."""

import asyncio
import fcntl
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from impact_plugin.__main__ import app
from impact_plugin.cli.errors import CommandError
from impact_plugin.cli.forget import forget
from impact_plugin.config.secrets import load_or_create_secret
from impact_plugin.config.settings import make_settings
from impact_plugin.errors import StateError
from impact_plugin.sessions.sessions import Digests, Sessions
from impact_plugin.store.embedded import open_store
from impact_plugin.telemetry import Telemetry
from impact_transformers import Question, Secret
from tests import builders

DESTINATION = '[destinations.eu]\naccountSID = "IRtest"\napiKey = "test-token-secret"\ncampaignId = "{campaign}"\n'
SECRET = "the-secret-of-a-test"
NOW = time.time()

Write = Callable[..., Path]


def run(*words: str) -> int:
    """Call the command in this process."""
    code = app(["forget", *words], result_action="return_value")
    assert isinstance(code, int)
    return code


def question(message: str, **more: Any) -> Question:
    """What a page or a login asks the sessions now."""
    now = int(NOW * 1000)
    return builders.question(message, **{"time": now, "received": now, **more})


@pytest.fixture(name="write")
def write_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Lend a writer of the service's file; the state folder is there, with the secret of an earlier start."""
    folder = tmp_path / "var"
    folder.mkdir()
    load_or_create_secret(folder)
    monkeypatch.setenv("NO_COLOR", "1")

    def write(more: str = DESTINATION.format(campaign="23224"), state: str = "") -> Path:
        file = tmp_path / "impact.toml"
        file.write_text(f'[state]\ndir = "{folder}"\n{state}\n{more}')
        return file

    return write


def remember(folder: Path, **state: Any) -> None:
    """Let a visitor click and log in."""

    async def put() -> None:
        settings = make_settings({"state": {"dir": str(folder), **state}}).state
        digests = Digests(Secret(SECRET) if state else load_or_create_secret(folder))
        async with open_store(settings, lambda: NOW) as store:
            sessions = Sessions(store, digests, Telemetry(), 0.0, lambda: NOW)
            await sessions.visits([question("p", click_id="CLICK-1"), question("i", joins=True, user_id="jane")])

    asyncio.run(put())


def test_what_was_deleted_is_told_place_by_place(
    capsys: pytest.CaptureFixture[str], write: Write, tmp_path: Path
) -> None:
    """Click memory, waiting events, dead letters and the ledger; the second time nothing is there."""
    file = write()
    remember(tmp_path / "var")
    codes = [run("--user", "jane", "--config", str(file)) for _ in range(2)]
    lines = capsys.readouterr().out.splitlines()

    assert [0, 0] == codes
    assert [
        "click memory: 2 identities deleted, at 1 program",
        "held events: 0 deleted",
        "dead letters: 0 deleted",
        "ledger of conversions: holds digests of orders only, nothing of a person",
        "click memory: 0 identities deleted, at 1 program",
    ] == lines[:5]
    assert not (tmp_path / "var" / "spool.db").exists()


def test_a_report_for_programs(capsys: pytest.CaptureFixture[str], write: Write, tmp_path: Path) -> None:
    """One JSON object."""
    file = write()
    remember(tmp_path / "var")
    code = run("--json", "--user", "nobody", "--user", "nobody-else", "--anonymous", "a-1", "--config", str(file))

    assert 0 == code
    assert {
        "identities": 1, "waiting": 0, "dead_letters": 0, "programs": 1, "unknown": "",
        "ledger": "holds digests of orders only, nothing of a person",
    } == json.loads(capsys.readouterr().out)  # fmt: skip


def test_ids_may_be_many(capsys: pytest.CaptureFixture[str], write: Write, tmp_path: Path) -> None:
    """More than a statement of SQLite takes. Called directly: reading so many options takes the parser seconds."""
    file = write()
    remember(tmp_path / "var")
    code = asyncio.run(forget(user=[f"nobody-{one}" for one in range(1500)], anonymous=["a-1"], json=True, config=file))

    assert 0 == code
    assert 1 == json.loads(capsys.readouterr().out)["identities"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("", "no destination is configured, and clicks are kept by account and campaign"),
        (
            DESTINATION.format(campaign="{{ event.properties.c || 23224 }}"),
            "eu: account and campaign come from each event",
        ),
    ],
)
def test_programs_that_are_not_known(
    capsys: pytest.CaptureFixture[str], write: Write, tmp_path: Path, more: str, told: str
) -> None:
    """Nobody is told that all is gone; --account and --campaign name what the file does not."""
    file = write(more)
    remember(tmp_path / "var")
    first = run("--user", "jane", "--config", str(file))
    said = capsys.readouterr()
    second = run("--user", "jane", "--account", "IRtest", "--campaign", "23224", "--config", str(file))

    assert (2, 0) == (first, second)
    assert told in said.err
    assert "--account SID --campaign ID" in said.err
    assert capsys.readouterr().out.startswith("click memory: 2 identities deleted")


@pytest.mark.parametrize(
    "words", [(), ("--user", ""), ("--user", "u", "--account", "a"), ("--user", "u", "--campaign", "c")]
)
def test_a_question_that_says_too_little(write: Write, words: tuple[str, ...]) -> None:
    """Nobody is forgotten, and a campaign alone is no program."""
    file = write()
    with pytest.raises(CommandError):
        run(*words, "--config", str(file))


def test_a_folder_of_no_service(write: Write, tmp_path: Path) -> None:
    """Exit code 2, and nothing is made there: a new secret would find nothing."""
    file = write()
    (tmp_path / "var" / "secret").unlink()
    words = [sys.executable, "-m", "impact_plugin", "forget", "--user", "u", "--config", str(file)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    with pytest.raises(StateError, match="holds no state"):
        run("--user", "u", "--config", str(file))
    assert [] == list((tmp_path / "var").iterdir())
    (tmp_path / "var").rmdir()
    with pytest.raises(StateError, match="does not exist"):
        run("--user", "u", "--config", str(file))

    assert (2, 1) == (ended.returncode, len(ended.stderr.splitlines()))


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """As a running service holds it."""
    with lock.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@asynccontextmanager
async def operator(reply: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[int]:
    """A stand-in for a service's operator port; its number."""
    stand_in = web.Application()
    stand_in.router.add_post("/forget", reply)
    runner = web.AppRunner(stand_in)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_a_running_service_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, write: Write, tmp_path: Path, host: str
) -> None:
    """In parts of a thousand, whose sums are told; where it listens everywhere, on the loopback."""
    bodies: list[dict[str, Any]] = []

    async def reply(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response({"identities": 2, "waiting": 1, "dead_letters": 0, "programs": 1, "ledger": "nothing"})

    users = [f"u-{number}" for number in range(1500)]
    async with operator(reply) as port:
        monkeypatch.setenv("IMPACT_PLUGIN__SERVER__OPERATOR_HOST", host)
        monkeypatch.setenv("IMPACT_PLUGIN__SERVER__OPERATOR_PORT", str(port))
        with held(tmp_path / "var" / "spool.lock"):
            code = await forget(user=users, anonymous=["a"], account=["IR"], campaign=["7"], json=True, config=write())
    report = json.loads(capsys.readouterr().out)

    assert (0, 4, 2, 1) == (code, report["identities"], report["waiting"], report["programs"])
    assert [1000, 500] == [len(body["users"]) for body in bodies]
    assert [[], ["a"]] == [body["anonymous"] for body in bodies]
    assert [[{"account": "IR", "campaign": "7"}]] * 2 == [body["programs"] for body in bodies]


@pytest.mark.parametrize(
    ("status", "text", "told"),
    [
        (503, '{"error":"not all was deleted, ask again: the disk is full"}', "replied 503: not all was deleted"),
        (404, "404: Not Found", "replied 404 in an unknown form"),
        (200, "[]", "replied 200 in an unknown form"),
    ],
)
async def test_a_service_that_could_not(
    monkeypatch: pytest.MonkeyPatch, write: Write, tmp_path: Path, status: int, text: str, told: str
) -> None:
    """Its words are told, and nobody is told that it is done."""

    async def reply(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    async with operator(reply) as port:
        monkeypatch.setenv("IMPACT_PLUGIN__SERVER__OPERATOR_PORT", str(port))
        with held(tmp_path / "var" / "spool.lock"), pytest.raises(CommandError, match=told):
            await forget(user=["u"], config=write())


@pytest.mark.parametrize("lock", ["sessions.lock", "spool.lock"])
async def test_a_service_that_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch, write: Write, tmp_path: Path, lock: str
) -> None:
    """Its files are not touched behind its back; the settings that would help are named."""
    monkeypatch.setenv("IMPACT_PLUGIN__SERVER__OPERATOR_PORT", "1")
    file = write()
    with (
        held(tmp_path / "var" / lock),
        pytest.raises(CommandError, match=r"does not answer there .*server.operator_port"),
    ):
        await forget(user=["u"], config=file)

    assert not (tmp_path / "var" / "sessions.db").exists()
