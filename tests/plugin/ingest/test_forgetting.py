"""Deletion of a person, from whatever side it is asked for: nothing of them is left, and nobody else loses anything."""

import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from impact_plugin.cli.forget import forget
from impact_plugin.errors import StateUnavailableError
from impact_plugin.spool.sqlite import SqliteSpool
from impact_plugin.store.embedded import EmbeddedStore
from tests import builders
from tests.plugin.ingest.ingest_shop import BASIC, Shop

pytestmark = pytest.mark.slow

USER: Final = "user-of-ada-4711"
VISITOR: Final = "visitor-of-ada-4711"
ORDER: Final = "order-of-ada-4711"
NOTE: Final = "note-of-ada-4711"
MARKERS: Final = (USER, VISITOR, ORDER, NOTE)
OTHERS: Final = "order-of-bob-4712"

Ask = Callable[[Shop], Awaitable[dict[str, Any]]]


def page(visitor: str, click_id: str) -> dict[str, Any]:
    """A landing."""
    return builders.landing(f"p-{visitor}", visitor, click_id)


def order(order_id: str | None, **who: Any) -> dict[str, Any]:
    """An order; without an id it is a dead letter."""
    properties = {"total": 25.0, "currency": "EUR", "note": NOTE if USER in who.values() else "none"}
    given = {} if order_id is None else {"order_id": order_id}
    kind = {"type": "track", "event": "Order Completed", "messageId": f"o-{order_id}-{sorted(who.values())}"}
    return {**kind, **who, "properties": {**properties, **given}}


def written(folder: Path) -> dict[str, bytes]:
    """What is in the files of the state folder now."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def found(folder: Path, *texts: str) -> list[tuple[str, str]]:
    """Which of the texts are in which file."""
    return [(name, text) for name, content in written(folder).items() for text in texts if text.encode() in content]


async def live(shop: Shop) -> None:
    """Let Ada and Bob land, log in, order while impact.com is shut, and leave a dead letter each."""
    shop.impact.script([{"match": {"path": "/Conversions"}, "status": 503}])
    await shop.start()
    people = ((VISITOR, USER, ORDER, "CLICK-ada"), ("visitor-of-bob", "user-of-bob", OTHERS, "CLICK-bob"))
    for visitor, user, order_id, click_id in people:
        login = {"type": "identify", "messageId": f"i-{user}", "anonymousId": visitor, "userId": user}
        batch = [page(visitor, click_id), login, order(order_id, userId=user), order(None, anonymousId=visitor)]
        status, _ = await shop.post("/v1/batch", {"batch": batch})
        assert 200 == status
    await shop.until("spool_waiting", 2)
    await shop.until("spool_dead_letters", 2)


async def by_operator(shop: Shop) -> dict[str, Any]:
    """``POST /forget`` on the operator's port."""
    async with shop.http.post(f"{shop.service.operator_url}/forget", json={"users": [USER]}) as response:
        assert 200 == response.status
        reply: dict[str, Any] = msgspec.json.decode(await response.read())
        return reply


async def by_message(shop: Shop) -> dict[str, Any]:
    """A ``delete`` message of Segment's, among others."""
    batch = [{"type": "delete", "userId": USER, "messageId": "d-1"}, page("visitor-of-eve", "CLICK-eve")]
    status, reply = await shop.post("/v1/batch", {"batch": batch})

    assert (200, 2) == (status, reply["accepted"])
    return {}


async def by_command(shop: Shop) -> dict[str, Any]:
    """``impact-plugin forget`` beside the service."""
    os.environ["IMPACT_PLUGIN__SERVER__OPERATOR_PORT"] = shop.service.operator_url.rpartition(":")[2]

    assert 0 == await forget(user=[USER], json=True, config=shop.file)
    return {}


async def by_command_alone(shop: Shop) -> dict[str, Any]:
    """The same when the service is stopped; afterwards it runs again."""
    await shop.stop()

    assert 0 == await forget(user=[USER], json=True, config=shop.file)
    assert [] == found(shop.folder, *MARKERS)
    await shop.start()
    return {}


@pytest.mark.parametrize("ask", [by_operator, by_message, by_command, by_command_alone])
async def test_nothing_of_a_person_is_left(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ask: Ask
) -> None:
    """No id, order or word in any file; what waited is not sent, a later order gets no click; Bob loses nothing."""
    monkeypatch.setenv("IMPACT_PLUGIN__SERVER__OPERATOR_PORT", "0")
    await live(shop)
    before = {text for _, text in found(shop.folder, *MARKERS)}
    report = await ask(shop) or msgspec.json.decode(capsys.readouterr().out or b"{}")
    while_running = found(shop.folder, *MARKERS)
    await shop.post("/v1/track", order("later", userId=USER))
    shop.impact.script([])
    await shop.until("spool_waiting", 0)
    sent = {call.form["OrderId"]: call.form.get("ClickId") for call in shop.impact.conversions if call.status == 200}

    assert set(MARKERS) == before
    assert {"identities": 2, "waiting": 1, "dead_letters": 1}.items() <= report.items() or ask is by_message
    assert [] == while_running
    assert {OTHERS: "CLICK-bob", "later": None} == sent
    assert 1 == shop.metric("spool_dead_letters")


async def test_what_was_taken_already_is_not_sent(shop: Shop) -> None:
    """An order that waits in memory for leave to be sent, because impact.com is shut, is gone like the others."""
    shop.impact.script([{"match": {"path": "/Conversions"}, "status": 503}])
    await shop.start()
    for number in range(12):
        await shop.post("/v1/track", order(f"bob-{number}", userId=f"bob-{number}"))
    await shop.until("spool_waiting", 12)
    await shop.post("/v1/track", order(ORDER, userId=USER))
    await shop.until("spool_waiting", 13)
    await by_operator(shop)
    shop.impact.script([])
    await shop.until("spool_waiting", 0)
    sent = {call.form["OrderId"] for call in shop.impact.conversions if call.status == 200}

    assert {f"bob-{number}" for number in range(12)} == sent


@pytest.mark.parametrize("given", ["ada.4711@shop.example", "Ada.4711@Shop.example"])
async def test_an_address_for_an_id_is_found_too(shop: Shop, given: str) -> None:
    """It was stored as a digest only; the deletion names it in clear, in any case."""
    await shop.start()
    await shop.post("/v1/track", order(None, userId="Ada.4711@shop.example", anonymousId=VISITOR))
    await shop.until("spool_dead_letters", 1)
    async with shop.http.post(f"{shop.service.operator_url}/forget", json={"users": [given]}) as response:
        report = msgspec.json.decode(await response.read())
    await shop.until("spool_dead_letters", 0)

    assert 1 == report["dead_letters"]
    assert [] == found(shop.folder, "ada.4711", "Ada.4711", VISITOR)


async def test_by_the_visitors_id_alone(shop: Shop) -> None:
    """The visitor's events go; what only the user did stays, because nobody asked for it."""
    await live(shop)
    async with shop.http.post(f"{shop.service.operator_url}/forget", json={"anonymous": [VISITOR]}) as response:
        report = msgspec.json.decode(await response.read())

    assert (1, 0, 1) == (report["identities"], report["waiting"], report["dead_letters"])
    assert [] == found(shop.folder, VISITOR)
    assert [] != found(shop.folder, USER)


async def test_nobody_known_is_no_error(running: Shop) -> None:
    """Asked again and again, the answer is that nothing was there."""
    for body in ({"users": [USER]}, {"users": [USER], "anonymous": [VISITOR]}, {}, {"users": [""]}):
        async with running.http.post(f"{running.service.operator_url}/forget", json=body) as response:
            report = msgspec.json.decode(await response.read())

        assert (200, 0, 0, 0) == (
            response.status,
            *(report[name] for name in ("identities", "waiting", "dead_letters")),
        )


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"user":["u"]}', b'{"users":"u"}', b'{"users":[5]}', b'{"programs":[{"account":"a"}]}']
)
async def test_a_question_that_cannot_be_read(running: Shop, body: bytes) -> None:
    """400, and what is to be sent; a misspelt key must not look like a deletion."""
    async with running.http.post(f"{running.service.operator_url}/forget", data=body) as response:
        reply = msgspec.json.decode(await response.read())

    assert 400 == response.status
    assert reply["error"].startswith('send {"users": [...], "anonymous": [...]}')


async def test_at_most_a_thousand_at_a_time(running: Shop) -> None:
    """More would keep the answer waiting."""
    body = {"users": [f"u{number}" for number in range(600)], "anonymous": [f"a{number}" for number in range(401)]}
    async with running.http.post(f"{running.service.operator_url}/forget", json=body) as response:
        reply = msgspec.json.decode(await response.read())

    assert (400, "at most 1000 ids at a time") == (response.status, reply["error"])


@pytest.mark.parametrize(
    ("kind", "method"), [(EmbeddedStore, "joined"), (EmbeddedStore, "forget"), (SqliteSpool, "forget")]
)
async def test_what_fails_is_asked_again_and_then_whole(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, kind: type, method: str
) -> None:
    """503 to the operator and to the sender; the next time also those are found who were joined to the user."""
    await live(shop)

    async def unreachable(_self: object, _people: Sequence[bytes]) -> None:
        raise StateUnavailableError("the disk is full")

    with monkeypatch.context() as outage:
        outage.setattr(kind, method, unreachable)
        async with shop.http.post(f"{shop.service.operator_url}/forget", json={"users": [USER]}) as response:
            reply = msgspec.json.decode(await response.read())
        message = msgspec.json.encode({"batch": [{"type": "delete", "userId": USER}]})
        async with shop.http.post(f"{shop.service.ingest_url}/v1/batch", data=message, headers=BASIC) as answer:
            await answer.read()
    await by_operator(shop)

    assert (503, "not all was deleted, ask again: the disk is full") == (response.status, reply["error"])
    assert (503, "5") == (answer.status, answer.headers["Retry-After"])
    assert [] == found(shop.folder, *MARKERS)


async def test_a_program_that_no_destination_names(shop: Shop) -> None:
    """A router's destination, whose account and campaign are told with the question."""
    await shop.start()
    config = {"accountSID": "IRrouter", "apiKey": "test-token-secret", "campaignId": "7"}
    item = {
        "message": page(VISITOR, "CLICK-ada"),
        "metadata": {"jobId": 1},
        "destination": {"ID": "d", "Config": config},
    }
    async with shop.http.post(f"{shop.service.url}/v0/destinations/impact", json=[item]) as response:
        await response.read()
    reports = []
    for programs in ([], [{"account": "IRrouter", "campaign": "7"}]):
        body = {"anonymous": [VISITOR], "programs": programs}
        async with shop.http.post(f"{shop.service.operator_url}/forget", json=body) as answer:
            reports.append(msgspec.json.decode(await answer.read()))

    assert [(0, 1), (1, 2)] == [(report["identities"], report["programs"]) for report in reports]
