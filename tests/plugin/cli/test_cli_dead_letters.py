"""``impact-plugin dead-letters``: what failed for good can be seen, sent again, taken away and deleted."""

import asyncio
import json
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from impact_plugin.__main__ import app
from impact_plugin.cli.errors import CommandError
from impact_plugin.config.settings import SpoolSettings, StateSettings
from impact_plugin.errors import StateError
from impact_plugin.spool.base import DeadLetter, DeadLetterCause, DeadLetterFilter, NewEvent, NewRow, SpoolRow
from impact_plugin.spool.sqlite import SqliteSpool, open_sqlite_spool
from impact_plugin.spool.sqlite_letters import open_letters

HOUR = 3600.0
SECRET = "test-token-secret"
ORDER: dict[str, Any] = {
    "type": "track",
    "event": "Order Completed",
    "messageId": "m-1",
    "userId": "u-1",
    "timestamp": "2026-09-10T10:00:00.000Z",
    "properties": {"order_id": "o-1", "total": 25.0, "currency": "EUR"},
}
REQUEST = b"POST http://name:the-password@127.0.0.1:1/Advertisers/IRtest/Conversions\n\nOrderId=o-1&Amount=25&Note=a%40b.example"

Seed = Callable[..., None]


def run(*words: str) -> int:
    """Call the command in this process."""
    code = app(["dead-letters", *words], result_action="return_value")
    assert isinstance(code, int)
    return code


def opened(folder: Path, clock: Callable[[], float]) -> AbstractAsyncContextManager[SqliteSpool]:
    """A spool that is never full, and lets go of nothing."""
    ages: dict[str, Any] = {"retention_days": 1e4, "dead_letter_days": 1e4, "seen_hours": 1e6}
    return open_sqlite_spool(SpoolSettings(min_free_mb=0, **ages), StateSettings(str(folder)), clock)


def letter(reason: str = "refused", **more: Any) -> NewRow:
    """A dead letter of an order."""
    plain: dict[str, Any] = {
        "destination": "eu",
        "payload": msgspec.json.encode(ORDER),
        "order_id": "o-1",
        "death": DeadLetterCause(reason, more.pop("detail", "Amount: is wrong"), more.pop("request", REQUEST)),
    }
    return NewRow(**{**plain, **more})


@pytest.fixture(name="seed")
def seed_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Seed:
    """Lend a writer of dead letters into the folder that the command will look at."""
    folder = tmp_path / "var"
    folder.mkdir()
    monkeypatch.setenv("IMPACT_PLUGIN__STATE__DIR", str(folder))
    monkeypatch.setenv("NO_COLOR", "1")
    count = iter(range(1_000_000))

    def seed(*rows: NewRow, age: float = 0.0, source: str = "shop") -> None:
        async def put() -> None:
            now = time.time() - age
            async with opened(folder, lambda: now) as spool:
                await spool.put(
                    [NewEvent(source, f"seen {next(count)}".encode(), int(now * 1000), (row,)) for row in rows]
                )

        asyncio.run(put())

    return seed


def kept(folder: Path, which: DeadLetterFilter | None = None) -> list[DeadLetter]:
    """What dead letters there are now."""

    async def read() -> list[DeadLetter]:
        async with open_letters(folder / "var", time.time) as letters:
            return [one async for one in letters.letters(which or DeadLetterFilter())]

    return asyncio.run(read())


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[int]:
    """The numbers that a filter finds."""
    assert run("list", "--json", *words) == 0
    return [one["number"] for one in json.loads(capsys.readouterr().out)["letters"]]


def test_a_list_tells_each_and_sums_by_reason(capsys: pytest.CaptureFixture[str], seed: Seed) -> None:
    """Without a terminal: columns between tabs, then how many there are for each reason, with its meaning."""
    seed(letter(), letter(), letter("expired", order_id=None, destination="us"))
    code = run("list", "--limit", "2")
    lines = capsys.readouterr().out.splitlines()

    assert 0 == code
    assert ["number", "rejected at", "source"] == lines[0].split("\t")[:3]
    assert ["1", "shop", "eu", "refused", "o-1", "0"] == [lines[1].split("\t")[place] for place in (0, 2, 3, 4, 5, 6)]
    assert "2" == lines[2].split("\t")[0]
    assert lines[3].startswith("2 refused: impact.com refused a parameter")
    assert lines[4].startswith("1 expired: The event waited")
    assert "2 of 3 are listed; see --limit and the filters" == lines[5]


def test_a_terminal_gets_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seed: Seed
) -> None:
    """With a heading for each column, and without colours where NO_COLOR asks for none."""
    seed(letter())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    run("list")
    out = capsys.readouterr().out

    assert ["number", "order id", "attempts"] == [word for word in ("number", "order id", "attempts") if word in out]
    assert "\x1b[3" not in out


def test_no_dead_letters_is_no_error(capsys: pytest.CaptureFixture[str], seed: Seed) -> None:
    """Whoever looks after a quiet day gets 0."""
    seed()

    assert 0 == run("list")
    assert "no dead letters\n" == capsys.readouterr().out


def test_every_filter_finds_its_own(capsys: pytest.CaptureFixture[str], seed: Seed) -> None:
    """By number, reason, source, destination, order id and time; several must all match."""
    seed(letter(), age=5 * HOUR)
    seed(letter("expired", destination="us", order_id="o-2"), source="crm", age=3 * HOUR)
    seed(letter("fault"), age=0.5 * HOUR)
    cut = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 4 * HOUR))

    assert [1, 3] == listed(capsys, "1", "3")
    assert [2] == listed(capsys, "--reason", "expired")
    assert [2] == listed(capsys, "--source", "crm")
    assert [2] == listed(capsys, "--destination", "us")
    assert [1, 3] == listed(capsys, "--order-id", "o-1")
    assert [2, 3] == listed(capsys, "--since", "4h")
    assert [1] == listed(capsys, "--until", cut)
    assert [2] == listed(capsys, "--since", cut.removesuffix("Z"), "--until", "60m")
    assert [] == listed(capsys, "--reason", "expired", "--order-id", "o-1")


@pytest.mark.parametrize("text", ["yesterday", "", "5", "5y", "2026-13-01", "-1h x"])
def test_a_time_that_is_none_is_refused(seed: Seed, text: str) -> None:
    """Rather than taken for all of time."""
    seed()
    with pytest.raises(CommandError, match=r"--since: must be a time such as .*, or an age such as 2h"):
        run("list", f"--since={text}")


def test_one_is_shown_with_all_there_is_to_know(capsys: pytest.CaptureFixture[str], seed: Seed) -> None:
    """The event, why, what to do, what impact.com said, and the request; no password, token or address."""
    payload = msgspec.json.encode({**ORDER, "properties": {"note": "write to ada@shop.example"}})
    seed(letter(payload=payload, detail="wrong for ada@shop.example"))
    code = run("show", "1")
    out = capsys.readouterr().out

    assert 0 == code
    for text in (
        "dead letter 1: refused",
        "meaning: impact.com refused a parameter",
        "fix: Correct what impact.com's response names, then retry.",
        "detail: wrong for",
        "request: POST /Advertisers/IRtest/Conversions",
        "    OrderId=o-1",
        "after 0 attempts",
        '"userId": "u-1"',
    ):
        assert text in out
    assert not [text for text in ("the-password", "ada@", "a@b.example", SECRET) if text in out]


def test_one_as_json(capsys: pytest.CaptureFixture[str], seed: Seed) -> None:
    """The same facts for programs; where nothing was sent there is no request."""
    seed(letter("missing_order_id", request=b""), letter())
    run("show", "1", "--json")
    run("show", "2", "--json")
    first, second = map(json.loads, capsys.readouterr().out.splitlines())

    assert (None, "missing_order_id", ORDER) == (first["request"], first["reason"], first["event"])
    assert ["POST", "/Advertisers/IRtest/Conversions"] == [second["request"][name] for name in ("method", "path")]
    assert [["OrderId", "o-1"], ["Amount", "25"]] == second["request"]["form"][:2]


def test_what_is_no_json_is_shown_too(capsys: pytest.CaptureFixture[str], seed: Seed) -> None:
    """As text that cannot move the terminal's cursor."""
    seed(letter("undecodable_event", payload=b'{"a": \xff\x1b[2J', order_id="\x1b[31mo\n"))
    run("show", "1")
    run("list")
    out = capsys.readouterr().out

    assert '{"a": ' in out
    assert "\x1b" not in out


def test_one_that_is_not_there(capsys: pytest.CaptureFixture[str], seed: Seed) -> None:
    """Exit code 1, and a word on standard error."""
    seed()
    code = run("show", "7")

    assert 1 == code
    assert "impact-plugin: there is no dead letter 7\n" == capsys.readouterr().err


def test_retry_puts_back_what_matches(capsys: pytest.CaptureFixture[str], seed: Seed, tmp_path: Path) -> None:
    """They wait again, and the others stay dead; when none matches the exit code says so."""
    seed(letter(), letter("expired"))
    codes = run("retry", "--reason", "refused"), run("retry", "1"), run("retry", "--all"), run("retry", "--all")

    assert (0, 1, 0, 0) == codes
    assert [] == kept(tmp_path)
    assert capsys.readouterr().out.startswith("1 dead letter put back")

    async def waiting() -> list[SpoolRow]:
        async with opened(tmp_path / "var", time.time) as spool:
            return await spool.take("eu", urgent=False, limit=10)

    assert 2 == len(asyncio.run(waiting()))


def test_retry_leaves_what_dies_meanwhile(seed: Seed, tmp_path: Path) -> None:
    """A running service may give it up again at once: taken once more, the command would never end."""
    seed(letter(), age=-HOUR)
    code = run("retry", "--all")

    assert 0 == code
    assert 1 == len(kept(tmp_path))


@pytest.mark.parametrize("command", ["retry", "purge"])
def test_everything_must_be_meant(seed: Seed, tmp_path: Path, command: str) -> None:
    """Without a filter it takes --all, and --all is no filter's company."""
    seed(letter())
    more = ("--yes",) if command == "purge" else ()
    with pytest.raises(CommandError, match="name dead letters"):
        run(command, *more)
    with pytest.raises(CommandError, match="--all: cannot be combined"):
        run(command, "--all", "--reason", "refused", *more)

    assert 1 == len(kept(tmp_path))


def test_purge_deletes(capsys: pytest.CaptureFixture[str], seed: Seed, tmp_path: Path) -> None:
    """Nothing is left in the file either."""
    seed(letter(payload=b'{"marker":"only-here"}'), letter("expired"))
    codes = run("purge", "1", "--yes"), run("purge", "1", "--yes")

    assert (0, 1) == codes
    assert [2] == [one.number for one in kept(tmp_path)]
    assert capsys.readouterr().out.startswith("1 dead letter deleted")


def test_purge_asks_nobody_where_nobody_is(seed: Seed, tmp_path: Path) -> None:
    """In a script it takes --yes."""
    seed(letter())
    with pytest.raises(CommandError, match="--yes"):
        run("purge", "--all")

    assert 1 == len(kept(tmp_path))


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, 0), ("Yes ", 0, 0), ("", 1, 1), ("no", 1, 1)])
def test_purge_asks_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, seed: Seed, tmp_path: Path, answer: str, code: int, left: int
) -> None:
    """With the number of those that would go; anything but yes leaves them."""
    seed(letter())
    asked: list[str] = []

    def reply(question: str) -> str:
        asked.append(question)
        return answer

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", reply)

    assert code == run("purge", "--all")
    assert ["delete 1 dead letter for good? [y/N] "] == asked
    assert left == len(kept(tmp_path))


def test_an_export_is_what_explain_reads(capfdbinary: pytest.CaptureFixture[bytes], seed: Seed, tmp_path: Path) -> None:
    """The events as they were stored, each on one line; explain finds the same order."""
    pretty = json.dumps(ORDER, indent=2).encode()
    seed(letter(payload=pretty), letter("undecodable_event", payload=b"{broken"))
    code = run("export")
    lines = capfdbinary.readouterr().out.splitlines()
    file = tmp_path / "export.ndjson"
    run("export", "1", "--out", str(file))
    told = app(["explain", str(file), "--json"], result_action="return_value")

    assert 0 == code
    assert [ORDER, "{broken"] == [json.loads(line) for line in lines]
    assert (0, lines[0] + b"\n") == (told, file.read_bytes())
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)


def test_an_export_over_a_file_is_private_too(seed: Seed, tmp_path: Path) -> None:
    """Whoever could read the file before cannot read the events of persons in it."""
    seed(letter())
    file = tmp_path / "export.ndjson"
    file.write_text("for all to read")
    file.chmod(0o644)
    run("export", "--out", str(file))

    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert ORDER == json.loads(file.read_text())


def test_a_full_export_has_everything(seed: Seed, tmp_path: Path) -> None:
    """One object for each, with the event within."""
    seed(letter())
    file = tmp_path / "export.ndjson"
    run("export", "--out", str(file), "--full")
    (found,) = map(json.loads, file.read_text().splitlines())

    assert ORDER == found["event"]
    assert {"number", "reason", "meaning", "fix", "detail", "request", "attempts", "received_at", "rejected_at"} < set(
        found
    )


def test_an_export_of_nothing_says_so(seed: Seed, tmp_path: Path) -> None:
    """Exit code 1; a file that cannot be written is one line, not a traceback."""
    seed(letter())

    assert 1 == run("export", "--reason", "expired")
    with pytest.raises(CommandError, match="cannot be written"):
        run("export", "--out", str(tmp_path / "absent" / "file"))


def test_a_folder_without_a_spool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is named, and nothing is made there; the process ends with 2."""
    monkeypatch.setenv("IMPACT_PLUGIN__STATE__DIR", str(tmp_path))
    with pytest.raises(StateError, match="there is no spool here"):
        run("list")
    words = [sys.executable, "-m", "impact_plugin", "dead-letters", "list"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)

    assert (2, "") == (ended.returncode, ended.stdout)
    assert 1 == len(ended.stderr.splitlines())
    assert [] == list(tmp_path.iterdir())


def test_the_file_of_the_service_tells_the_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seed: Seed, tmp_path: Path
) -> None:
    """With --config, as for serve."""
    seed(letter())
    monkeypatch.delenv("IMPACT_PLUGIN__STATE__DIR")
    file = tmp_path / "impact.toml"
    file.write_text(f'[state]\ndir = "{tmp_path / "var"}"\n')

    assert [1] == listed(capsys, "--config", str(file))
    assert 0 == run("show", "1", "--config", str(file))
