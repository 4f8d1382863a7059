"""Recorded events sent once more: in order, until they are taken, and from where it stopped."""

import asyncio
import gzip
import json
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from aiohttp import web

from impact_plugin.__main__ import app
from impact_plugin.app import Service
from impact_plugin.cli.errors import CommandError
from impact_plugin.cli.replay_send import DEFAULT_BATCH, SendOptions
from impact_plugin.recording.lines import EventLine, Header
from impact_plugin.testing.fake_impact import FakeImpact
from impact_plugin.traffic import sending
from impact_plugin.traffic.reading import ReadingError, Traffic
from impact_plugin.traffic.sending import Sending, SendingError, batches, send_all
from impact_plugin.traffic.sent import Sent, load_sent, save_sent
from impact_plugin.traffic.shapes import Shape, Via
from tests import builders
from tests.builders import CONFIG, HOME
from tests.plugin.traffic.scripted_server import Server

pytestmark = pytest.mark.slow

KEY = "key-of-the-source"
STORED = {"success": True, "accepted": 2, "rejected": 0, "duplicates": 0, "filtered": 0, "results": []}

Write = Callable[..., Path]
Reply = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@pytest.fixture(name="write")
def write_fixture(tmp_path: Path) -> Write:
    """Lend a writer of files with an event a line; bytes go in as they are."""

    def write(*events: Any, name: str = "events.ndjson") -> Path:
        path = tmp_path / name
        lines = (one if isinstance(one, bytes) else msgspec.json.encode(one) for one in events)
        path.write_bytes(b"\n".join(lines) + b"\n")
        return path

    return write


@pytest.fixture(autouse=True)
def soon_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no test wait for long between two tries."""
    monkeypatch.setattr(sending, "FIRST_BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(sending, "POLL_SECONDS", 0.01)


def noise(number: int) -> str:
    """What no compression makes smaller, the same at every run."""
    return sha256(str(number).encode()).hexdigest()


def page(number: int) -> dict[str, Any]:
    """A page of a visitor of its own."""
    return builders.page(f"m-{number}", f"v-{number}", f"{HOME}{number}")


async def send(
    path: Path,
    port: int,
    via: Via = "segment",
    *,
    batch: int = 2,
    patience: float = 5.0,
    sent: Sent | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Sent:
    """Send a file as the command does."""
    shape = Shape(via, f"127.0.0.1:{port}", CONFIG, batch, KEY, "shop", now=1_790_000_000.0)
    sent = sent or Sent()
    async with aclosing(Sending(shape, sent, patience=patience, stopping=stopping)) as one:
        sent.complete = await send_all(batches(Traffic([path]), batch, sent.events, stopping), one, lambda: None)
    return sent


def scripted(*answers: tuple[int, Any], headers: dict[str, str] | None = None) -> Reply:
    """Answers one after the other, the last of them from then on."""
    left = list(answers)

    async def reply(_request: web.BaseRequest) -> web.StreamResponse:
        status, body = left.pop(0) if len(left) > 1 else left[0]
        return web.Response(status=status, body=msgspec.json.encode(body), headers=headers)

    return reply


@pytest.mark.parametrize(("via", "path"), [("segment", "/v1/batch"), ("webhook", "/webhook/shop")])
async def test_events_go_as_they_are_and_in_order(server: Server, write: Write, via: Via, path: str) -> None:
    """Byte for byte what stands in the file, so many in a request, one request after the other."""
    odd = b'{"type":"page", "properties": {"total": 12.0, "id": 12345678901234567890123}, "messageId":"m-9"}'
    server.reply = scripted((200, STORED), (200, {"success": True}))
    sent = await send(write(page(1), page(2), odd), server.port, via)

    assert server.paths == {path: 2}
    bodies = [body.removeprefix(b'{"batch":').removesuffix(b"}" if via == "segment" else b"") for body in server.bodies]
    assert bodies[0] == b"[" + msgspec.json.encode(page(1)) + b"," + msgspec.json.encode(page(2)) + b"]"
    assert bodies[1] == b"[" + odd + b"]"
    assert sent.complete
    assert sent.events == 3


async def test_a_large_batch_is_parted(server: Server, write: Write) -> None:
    """No request is larger than the Segment HTTP API takes, but for an event that is so alone."""
    large = {**page(1), "filler": "x" * 200_000}
    server.reply = scripted((200, {"success": True}))
    sent = await send(write(large, large, large, {**large, "filler": "x" * 600_000}, page(2)), server.port, batch=100)

    assert [len(body) for body in server.bodies] == [
        pytest.approx(size, abs=500) for size in (400_000, 200_000, 600_000, 0)
    ]
    assert sent.events == 5


async def test_what_cannot_be_taken_now_is_sent_again(server: Server, write: Write) -> None:
    """429, 5xx and a connection that breaks: the same request once more, and nothing in between."""
    breaks = iter([False, False, True])
    refused: list[tuple[int, dict[str, Any]]] = [(429, {}), (503, {}), (500, {})]
    scripts = scripted(*refused, (200, STORED), (200, {"success": True}), headers={"Retry-After": "0"})

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        if next(breaks, False) and request.transport is not None:
            request.transport.abort()
        return await scripts(request)

    server.reply = reply
    sent = await send(write(page(1), page(2), page(3)), server.port)

    # The third answer was lost with its connection.
    assert len(server.bodies) == 5
    assert len(set(server.bodies[:4])) == 1
    assert sent.repeats == 3
    assert sent.outcomes == {"held": 3}


async def test_retry_after_is_kept(server: Server, write: Write) -> None:
    """And bounded: a service cannot ask for a day."""
    server.reply = scripted((429, {}), (200, {"success": True}), headers={"Retry-After": "1"})
    began = asyncio.get_running_loop().time()
    await send(write(page(1)), server.port)

    assert asyncio.get_running_loop().time() - began >= 1.0


@pytest.mark.parametrize("status", [429, 503, 500, 0])
async def test_patience_ends(server: Server, write: Write, status: int) -> None:
    """Whatever the service answers, or nothing at all; what is told says how it goes on."""
    server.reply = scripted((status or 200, {"error": "not now"}))
    if not status:
        await server.stop()
    sent = Sent()
    with pytest.raises(SendingError, match=r"accepted nothing for 0\.1 s: (no reply|\d{3} .*not now)"):
        await send(write(page(1)), server.port, patience=0.1, sent=sent)

    assert sent.events == 0
    assert not sent.complete


@pytest.mark.parametrize("status", [401, 404, 301])
async def test_an_answer_that_stays_ends_it_at_once(server: Server, write: Write, status: int) -> None:
    """A wrong key or a wrong port gets no better by trying."""
    server.reply = scripted((status, {"error": "unknown_key"}))
    with pytest.raises(SendingError, match=rf"does not accept events of this source: {status} .*unknown_key"):
        await send(write(page(1)), server.port)

    assert len(server.bodies) == 1


async def test_some_other_server_is_told(server: Server, write: Write) -> None:
    """200 of whatever listens there says nothing."""
    with pytest.raises(SendingError, match="is not the service's port for senders: 200 ok"):
        await send(write(page(1)), server.port)
    server.reply = scripted((200, {"status": "taken"}))
    with pytest.raises(SendingError, match="is not the service's port for senders"):
        await send(write(page(1)), server.port)


async def test_every_event_must_be_accounted_for(server: Server, write: Write) -> None:
    """An answer about two events is none about three."""
    server.reply = scripted((200, STORED))
    sent = Sent()
    with pytest.raises(SendingError, match="its reply does not account for all of 3 events"):
        await send(write(page(1), page(2), page(3)), server.port, batch=3, sent=sent)

    assert sent == Sent()


async def test_a_redirection_is_not_followed(server: Server, write: Write) -> None:
    """It could lead to a machine that nobody allowed."""
    server.reply = scripted((307, {}), headers={"Location": f"http://127.0.0.1:{server.port}/elsewhere"})
    with pytest.raises(SendingError, match="307"):
        await send(write(page(1)), server.port)

    assert server.paths == {"/v1/batch": 1}


async def test_a_batch_is_counted_once_although_it_is_sent_twice(server: Server, write: Write) -> None:
    """Half of it is taken, then nothing: with the next try all of it is counted, and not that half twice."""

    async def reply(_request: web.BaseRequest) -> web.StreamResponse:
        events = server.bodies[-1].count(b"messageId")
        status = 413 if events > 2 else 503 if b"m-3" in server.bodies[-1] else 200
        body = {**STORED, "accepted": events} if status == 200 else {"success": False, "error": "not like this"}
        return web.Response(status=status, body=msgspec.json.encode(body))

    path, sent = write(*map(page, range(1, 5))), Sent()
    server.reply = reply
    with pytest.raises(SendingError, match="accepted nothing"):
        await send(path, server.port, batch=4, patience=0.05, sent=sent)
    assert (sent.events, sent.outcomes) == (0, {})
    server.reply = scripted((200, {**STORED, "accepted": 2, "duplicates": 2}))
    await send(path, server.port, batch=4, sent=sent)

    assert (sent.events, sent.outcomes) == (4, {"held": 2, "duplicate": 2})


async def test_a_request_that_is_refused_is_parted_until_the_event_is_found(server: Server, write: Write) -> None:
    """One event that nobody takes costs no other."""

    async def reply(_request: web.BaseRequest) -> web.StreamResponse:
        body = server.bodies[-1]
        if b"m-3" in body:
            return web.Response(status=413, body=b'{"success":false,"error":"body_too_large of ann@example.com"}')
        return web.Response(body=msgspec.json.encode({**STORED, "accepted": body.count(b"messageId")}))

    server.reply = reply
    sent = await send(write(*map(page, range(1, 8))), server.port, batch=7)

    assert sent.outcomes == {"held": 6, "rejected": 1}
    (example,) = sent.examples["rejected"]
    assert example.startswith("event 3: 413")
    assert "ann@" not in example
    assert sent.lost == 1


async def test_lines_that_are_no_events_are_counted_and_not_sent(server: Server, write: Write) -> None:
    """Nor do they spoil the events beside them, or the numbers of those."""
    rejected = {"index": 1, "status": "rejected", "error": "missing_type: no type"}
    server.reply = scripted((200, {**STORED, "accepted": 1, "rejected": 1, "results": [rejected]}))
    sent = await send(write(page(1), b"[1]", b"{broken}", page(4)), server.port, batch=4)

    assert sent.outcomes == {"held": 1, "rejected": 3}
    assert sent.examples["rejected"] == [
        "event 4: missing_type: no type",
        "event 2 is not a JSON object",
        "event 3 is not a JSON object",
    ]
    assert b"broken" not in server.bodies[0]


async def test_stopping_while_the_service_is_waited_for(server: Server, write: Write) -> None:
    """Somebody who asks to stop does not wait until patience ends."""
    server.reply = scripted((503, {}))
    sent = await send(write(page(1)), server.port, patience=60, stopping=lambda: len(server.bodies) > 1)

    assert not sent.complete
    assert sent.events == 0


@pytest.mark.parametrize("answer", [web.Response(body=b"[]"), web.Response(body=b"[]", headers={"apiVersion": "2"})])
async def test_an_answer_that_would_harm_a_router_is_told(server: Server, write: Write, answer: web.Response) -> None:
    """Without the version, or without the events."""

    async def reply(_request: web.BaseRequest) -> web.StreamResponse:
        return answer

    server.reply = reply
    with pytest.raises(SendingError, match="a router could not use its reply"):
        await send(write(page(1)), server.port, "processor")


@pytest.fixture(name="impact")
async def impact_fixture() -> AsyncIterator[FakeImpact]:
    """Lend an impact.com."""
    async with FakeImpact(auth_token="test-token-secret") as impact:
        yield impact


def order(number: int) -> dict[str, Any]:
    """An order of the visitor of the page with this number."""
    return builders.order(f"o-{number}", f"mo-{number}", f"v-{number}")


@pytest.mark.parametrize(
    ("via", "outcome"), [("processor", "transformed"), ("router", "transformed"), ("proxy", "sent")]
)
async def test_the_ways_of_a_router(
    start: Callable[..., Awaitable[Service]], write: Write, impact: FakeImpact, via: Via, outcome: str
) -> None:
    """Against the real service: only the proxy delivers, and twice the same is one order."""
    service = await start(impact={"tracking_url": impact.url, "api_url": impact.url})
    port = int(service.url.rpartition(":")[2])
    path = write(page(1), order(1), {**page(2), "type": "group"}, {"type": 7}, order(2))
    sent = await send(path, port, via)
    again = await send(path, port, via)

    assert sent.outcomes == {outcome: 3, "filtered": 1, "rejected": 1}
    assert sent.examples["rejected"][0].startswith("event 4: 400")
    assert again.events == 5
    orders = [call.form["OrderId"] for call in impact.calls if "OrderId" in call.form]
    assert orders == (["o-1", "o-2"] if via == "proxy" else [])


async def test_a_delivery_that_fails_is_repeated_and_then_goes_on(
    start: Callable[..., Awaitable[Service]], write: Write, impact: FakeImpact
) -> None:
    """impact.com refuses for a moment; the order after it waits for its turn."""
    impact.script([{"status": 503, "times": 2}])
    service = await start(impact={"tracking_url": impact.url, "api_url": impact.url})
    sent = await send(write(order(1), order(2)), int(service.url.rpartition(":")[2]), "proxy", patience=30)

    assert sent.outcomes == {"sent": 2}
    assert [call.form["OrderId"] for call in impact.calls if call.accepted] == ["o-1", "o-2"]


async def test_events_without_ids_do_not_look_like_repeats(
    start: Callable[..., Awaitable[Service]], write: Write
) -> None:
    """A router gives each an id of its own; here it is made of the event, so that the same event keeps it."""
    service = await start()
    events = [{name: value for name, value in page(number).items() if name != "messageId"} for number in range(1, 6)]
    sent = await send(write(*events), int(service.url.rpartition(":")[2]), "processor")

    assert sent.outcomes == {"transformed": 5}


def test_how_far_it_is_is_kept(tmp_path: Path) -> None:
    """And only taken for the same files and the same target."""
    path, files, target = tmp_path / "state", [("a", 1, "begins")], ("segment", "127.0.0.1:9092", "")
    sent = Sent(7, {"held": 6, "rejected": 1}, {"rejected": ["event 1: no"]}, 2)
    assert load_sent(path, files, target) == Sent()
    save_sent(path, files, target, sent)

    assert load_sent(path, files, target) == sent
    for other in ((files, ("webhook", *target[1:])), ([("a", 1, "else")], target)):
        with pytest.raises(ReadingError, match="belongs to other files or another target"):
            load_sent(path, *other)
    path.write_bytes(b"{")
    with pytest.raises(ReadingError, match="cannot be read as the progress of replay --send"):
        load_sent(path, files, target)
    with pytest.raises(ReadingError, match="cannot be written"):
        save_sent(tmp_path / "none" / "state", files, target, sent)


def run(*words: str) -> int:
    """Call the command in this process."""
    code = app(["replay", *words], result_action="return_value")
    assert isinstance(code, int)
    return code


def test_it_says_what_it_needs(write: Write, tmp_path: Path) -> None:
    """Before anything is sent: nothing listens at these addresses."""
    path, here = str(write(page(1))), "http://127.0.0.1:9"
    page_file = str(tmp_path / "page.html")
    configuration, service_file = tmp_path / "destination.json", tmp_path / "impact.toml"
    configuration.write_bytes(msgspec.json.encode(CONFIG))
    service_file.write_text('[destinations.eu]\naccountSID = "IRtest"\n', encoding="utf-8")
    for words, told in (
        (["--send", "--url", here], "--key: required with --via segment"),
        (["--send", "--url", here, "--via", "webhook", "--key", "k"], "--source: required"),
        (["--send", "--url", here, "--via", "proxy"], "--destination: required with --via proxy"),
        (
            ["--send", "--url", "http://192.0.2.1:9092", "--key", "k"],
            "--url: 192.0.2.1 is not this machine; .* --anywhere",
        ),
        (["--send", "--url", "127.0.0.1:9092", "--key", "k"], "--url: must be http://HOST:PORT"),
        (["--send", "--url", "", "--key", "k"], "--url: must be http://HOST:PORT"),
        (["--send", "--url", "http://127.0.0.1:99999", "--key", "k"], "--url: must be http://HOST:PORT"),
        (["--send", "--url", "http://127.0.0.1:0", "--key", "k"], "--url: must be http://HOST:PORT"),
        (["--send", "--url", "http://[::1", "--key", "k"], "--url: must be http://HOST:PORT"),
        (["--send", "--url", f"http://{'a' * 70}.invalid", "--key", "k"], "--url: "),
        (["--send", "--url", here, "--key", "k\n"], "--key: must have visible ASCII characters"),
        (["--send", "--url", here, "--key", "schl\u00fcssel"], "--key: must have visible ASCII characters"),
        (["--send", "--url", here, "--via", "webhook", "--key", "k", "--source", "a/b"], "--source: must be the name"),
        (
            ["--send", "--url", here, "--via", "proxy", "-d", str(configuration), "--batch", "2"],
            "--batch: cannot be combined",
        ),
        (["--send", "--url", here, "--via", "proxy", "-d", str(service_file)], "holds several destinations"),
        (
            ["--send", "--url", here, "--key", "k", "--html", page_file],
            "cannot be combined with --against, --order-id, --html and --csv",
        ),
        (["--send", "--url", here, "--key", "k", "--order-id", "o"], "cannot be combined"),
        (["--send", "--url", here, "--key", "k", "--against", path], "cannot be combined"),
    ):
        with pytest.raises(CommandError, match=told):
            run(path, *words)
    with pytest.raises(ReadingError, match="cannot be written"):
        run(path, "--send", "--url", here, "--key", "k", "--resume", str(tmp_path / "none" / "state"))


def test_a_recording_of_ours_needs_to_be_meant(write: Write) -> None:
    """Its customers are pseudonyms."""
    lines = [Header(1, "2026-11-28T10:00:00Z", "1"), EventLine(1, "shop", 1, ("eu",), msgspec.Raw(b"{}"))]
    path, here = str(write(*lines)), "http://127.0.0.1:9"
    with pytest.raises(CommandError, match="with pseudonyms in place of customers"):
        run(path, "--send", "--url", here, "--key", "k")

    assert run(path, "--send", "--url", here, "--key", "k", "--pseudonyms", "--patience", "0", "--quiet") == 1


def test_a_service_that_is_not_there(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is lost, and how it goes on is told; as an object too."""
    path, state = str(write(page(1))), tmp_path / "state"
    words = [path, "--send", "--url", "http://127.0.0.1:9", "--key", "k", "--patience", "0", "--resume", str(state)]
    assert run(*words) == 1
    told = capsys.readouterr().err
    assert "accepted nothing for 0 s: no reply" in told
    assert f"continue with the same command and --resume {state}" in told
    assert run(*words, "--json") == 1
    assert json.loads(capsys.readouterr().out)["events"] == 0


async def command(*words: str) -> tuple[int, str, str]:
    """Call the command as a process of its own: exit code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "impact_plugin", "replay", *words), stdout=PIPE, stderr=PIPE
    )
    out, errors = await process.communicate()
    return process.returncode or 0, out.decode(), errors.decode()


async def test_what_was_sent_is_not_sent_once_more(server: Server, write: Write, tmp_path: Path) -> None:
    """The same command again, which somebody will type: nobody is asked, and what was refused is not forgotten."""
    path = write(page(1), b"{broken}")
    server.reply = scripted((200, {"success": True}))
    words = [
        str(path),
        "--send",
        "--url",
        f"http://127.0.0.1:{server.port}",
        "--key",
        KEY,
        "--resume",
        str(tmp_path / "state"),
    ]
    first, again = await command(*words), await command(*words)
    objects = [json.loads((await command(*words, "--json"))[1]) for _ in range(2)]

    assert (first[0], again[0]) == (1, 1)
    assert "everything was posted already; to post it once more, delete" in again[1]
    assert "event 2 is not a JSON object" in again[1]
    assert len(server.bodies) == 1
    assert objects[0] == objects[1]
    assert (objects[0]["outcomes"], objects[0]["via"]) == ({"held": 1, "rejected": 1}, "segment")


@pytest.mark.parametrize("changed", ["replaced", "longer", "gone"])
async def test_a_file_that_changes_meanwhile_is_not_taken_for_sent(
    server: Server, write: Write, tmp_path: Path, changed: str
) -> None:
    """The next day's export takes the place of the first: its orders must not count as sent."""
    path, other = write(page(1), page(2), page(3)), write(page(4), page(5), page(6), name="other.ndjson")

    def lengthen() -> None:
        with path.open("ab") as file:
            file.write(msgspec.json.encode(page(7)) + b"\n")

    change = {"replaced": lambda: other.replace(path), "longer": lengthen, "gone": path.unlink}

    async def reply(_request: web.BaseRequest) -> web.StreamResponse:
        if len(server.bodies) == 1:
            change[changed]()
        return web.Response(body=b'{"success":true}')

    server.reply = reply
    words = [
        str(path),
        "--send",
        "--url",
        f"http://127.0.0.1:{server.port}",
        "--key",
        KEY,
        "--resume",
        str(tmp_path / "state"),
    ]
    code, _, errors = await command(*words, "--batch", "1")

    assert (code, "a file changed while it was sent" in errors) == (1, True), errors
    code, _, errors = await command(*words, "--batch", "1")
    assert (code, ("cannot be read" if changed == "gone" else "other files") in errors) == (2, True), errors


async def test_a_file_that_was_cut_off_is_not_taken_for_sent(server: Server, tmp_path: Path) -> None:
    """Half of a download: what can be read of it goes, and what is missing is told."""
    path = tmp_path / "events.ndjson.gz"
    lines = b"\n".join(msgspec.json.encode({**page(number), "x": noise(number)}) for number in range(200))
    path.write_bytes(gzip.compress(lines)[:-3000])
    server.reply = scripted((200, {"success": True}))
    words = [
        str(path),
        "--send",
        "--url",
        f"http://127.0.0.1:{server.port}",
        "--key",
        KEY,
        "--resume",
        str(tmp_path / "state"),
    ]
    for _ in range(2):
        code, _, errors = await command(*words)

        assert code == 1
        assert "is cut off; everything up to there was sent" in errors


async def test_a_file_that_is_damaged_in_its_middle(server: Server, tmp_path: Path) -> None:
    """What stands before goes; the file and the trouble are told, in JSON too."""
    path = tmp_path / "events.ndjson.gz"
    lines = b"\n".join(msgspec.json.encode({**page(number), "x": noise(number)}) for number in range(2000))
    packed = bytearray(gzip.compress(lines, mtime=0))
    packed[len(packed) // 2 : len(packed) // 2 + 400] = b"\xff" * 400
    path.write_bytes(packed)
    server.reply = scripted((200, {"success": True}))
    words = [str(path), "--send", "--url", f"http://127.0.0.1:{server.port}", "--key", KEY, "--json"]
    code, out, _ = await command(*words)
    told = json.loads(out)

    assert code == 1
    assert f"{path}: cannot be read" in told["problem"]
    assert 0 < told["events"] < 2000
    # Where the damage begins a gzip may still give something, but nothing that can be read.
    assert told["outcomes"]["held"] == sum(body.count(b'"messageId"') for body in server.bodies)
    assert not told["complete"]


async def test_another_key_or_destination_is_another_target(server: Server, write: Write, tmp_path: Path) -> None:
    """Half a day for one account must not become a day for two."""
    path, here = str(write(page(1))), f"http://127.0.0.1:{server.port}"
    server.reply = scripted((200, {"success": True}))
    words = [path, "--send", "--url", here, "--resume", str(tmp_path / "state")]
    assert (await command(*words, "--key", KEY))[0] == 0
    code, _, errors = await command(*words, "--key", "another-key")

    assert code == 2
    assert "another target" in errors
    assert KEY not in (tmp_path / "state").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_request_that_hangs_does_not_hold_who_wants_to_stop(
    server: Server, write: Write, number: signal.Signals
) -> None:
    """It is sent again anyway."""
    never, asked = asyncio.Event(), asyncio.Event()

    async def reply(_request: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        await never.wait()
        return web.Response()

    server.reply = reply
    words = [str(write(page(1))), "--send", "--url", f"http://127.0.0.1:{server.port}", "--key", KEY]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "impact_plugin", "replay", *words), stdout=PIPE
    )
    await asyncio.wait_for(asked.wait(), 10)
    process.send_signal(number)
    out, _ = await asyncio.wait_for(process.communicate(), 10)
    never.set()

    assert process.returncode == 3
    assert b"interrupted" in out


async def test_a_request_that_hangs_is_given_up(server: Server, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is for answers too, but for the least that one may take."""
    monkeypatch.setattr(sending, "MIN_REPLY_SECONDS", 0.2)
    never = asyncio.Event()

    async def reply(_request: web.BaseRequest) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    server.reply = reply
    with pytest.raises(SendingError, match="no reply in"):
        await asyncio.wait_for(send(write(page(1)), server.port, patience=0.1), 5)
    never.set()


@pytest.mark.parametrize("status", [400, 413])
async def test_a_refusal_of_some_other_server_is_none_of_the_events(server: Server, write: Write, status: int) -> None:
    """A port for TLS answers 400 to everything: that says nothing about any event."""
    server.reply = scripted((status, "Client sent an HTTP request to an HTTPS server."))
    sent = Sent()
    with pytest.raises(SendingError, match=f"does not accept events of this source: {status}"):
        await send(write(page(1)), server.port, sent=sent)

    assert sent == Sent()


async def test_what_no_router_can_pass_on_costs_its_own_event_only(
    start: Callable[..., Awaitable[Service]], write: Write
) -> None:
    """A number of four hundred digits, a thousand lists within each other."""
    deep = b'{"type":"page","messageId":"deep","properties":{"a":' + b"[" * 900 + b"]" * 900 + b"}}"
    long = b'{"type":"page","messageId":"long","properties":{"a":' + b"9" * 400 + b"}}"
    service = await start()
    sent = await send(write(page(1), deep, long, page(2)), int(service.url.rpartition(":")[2]), "router", batch=10)

    assert sent.events == 4
    assert sent.outcomes == {"transformed": 2, "rejected": 2}


async def test_a_recording_within_another_file_is_noticed(server: Server, write: Write) -> None:
    """Somebody put files together: nothing of it goes by accident."""
    recorded = EventLine(1, "shop", 1, ("eu",), msgspec.Raw(msgspec.json.encode(page(2))))
    server.reply = scripted((200, {"success": True}))
    with pytest.raises(SendingError, match="event 2 comes from a recording"):
        await send(write(page(1), recorded), server.port, batch=10)

    assert [(b"m-1" in body, b"m-2" in body) for body in server.bodies] == [(True, False)]


def test_the_key_is_not_shown_and_may_be_in_a_variable(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command line is for everybody to see."""
    monkeypatch.setenv("IMPACT_PLUGIN_KEY", "the-secret-key")

    assert run(str(write(page(1))), "--send", "--url", "http://127.0.0.1:9", "--patience", "0") == 1
    assert "the-secret-key" not in capsys.readouterr().out + repr(SendOptions(key="the-secret-key"))


def test_every_way_has_a_size() -> None:
    """Of its requests."""
    assert set(DEFAULT_BATCH) == set(get_args(Via))
