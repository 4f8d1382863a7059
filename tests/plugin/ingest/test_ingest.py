"""Events of senders, through the whole service: durable, decided, delivered once, with an answer they understand."""

from pathlib import Path
from typing import Any

import msgspec

from impact_plugin.testing.fake_impact import FakeImpact
from impact_transformers import hash_email
from tests.plugin.ingest.ingest_shop import BASIC, KEY, Shop


def named(event: dict[str, Any], message_id: str, **more: Any) -> dict[str, Any]:
    """The event under another id."""
    return {**event, "messageId": message_id, **more}


async def test_a_page_and_an_order_arrive(running: Shop, page: dict[str, Any], order: dict[str, Any]) -> None:
    """By the path of their calls, without a type in the body, as Segment's API has it."""
    page.pop("type")
    order.pop("type")
    answers = [await running.post("/v1/page", page), await running.post("/v1/track", order)]
    await running.delivered(2)

    assert [(200, {"success": True})] * 2 == answers
    assert ["a-1"] == [call.form["CustomProfileId"] for call in running.impact.page_loads]
    assert ["o-1"] == [call.form["OrderId"] for call in running.impact.conversions]


async def test_a_batch_is_answered_item_by_item(running: Shop, page: dict[str, Any], order: dict[str, Any]) -> None:
    """One bad item costs no other, and the answer tells what became of each that was not simply stored."""
    await running.post("/v1/batch", {"batch": [page]})
    bad = named(order, "m-bad", properties={"total": 1})
    group = named(page, "m-group", type="group")
    status, reply = await running.post("/v1/batch", {"batch": [page, order, bad, group, 5, None]})
    await running.delivered(2)

    assert 200 == status
    assert (1, 3, 1, 1) == tuple(reply[name] for name in ("accepted", "rejected", "duplicates", "filtered"))
    assert [(0, "duplicate"), (2, "rejected"), (3, "filtered"), (4, "rejected"), (5, "rejected")] == [
        (result["index"], result["status"]) for result in reply["results"]
    ]
    assert reply["results"][1]["error"].startswith("missing_order_id")


async def test_what_comes_again_is_delivered_once(running: Shop, order: dict[str, Any]) -> None:
    """With another time of sending, and also in one batch."""
    await running.post("/v1/track", {**order, "sentAt": "2026-09-10T10:00:01.000Z"})
    await running.post("/v1/track", {**order, "sentAt": "2026-09-10T10:10:01.000Z"})
    _, reply = await running.post("/v1/batch", {"batch": [order, order]})
    await running.delivered(1)

    assert 2 == reply["duplicates"]
    assert 3 == running.metric("ingested_events_total", status="duplicate")


async def test_an_event_without_an_id_is_known_by_what_it_says(running: Shop, order: dict[str, Any]) -> None:
    """The times that a sender renews do not make it another one."""
    order.pop("messageId")
    await running.post("/v1/track", {**order, "sentAt": "2026-09-10T10:00:01.000Z"})
    _, reply = await running.post("/v1/track", {**order, "sentAt": "2026-09-10T10:10:01.000Z"})
    await running.delivered(1)

    assert 1 == reply["duplicates"]


async def test_the_remembered_click_id_is_put_on_the_order(
    running: Shop, page: dict[str, Any], order: dict[str, Any]
) -> None:
    """The landing brings it, the order of the same visitor gets it, and the landing is a unique click."""
    page["properties"] = {"url": "https://shop.example.com/?irclickid=c-1"}
    await running.post("/v1/batch", {"batch": [page, order]})
    await running.delivered(2)

    assert ["c-1", "c-1"] == [call.form["ClickId"] for call in running.impact.calls]
    assert 1 == running.metric("click_decisions_total", decision="new")


async def test_no_address_is_written_down(running: Shop, order: dict[str, Any]) -> None:
    """Not to the spool, not to a dead letter; and what is sent is the same digest as ever."""
    person = {"email": "Ada@Shop.example"}
    order["context"] = {"traits": person, "page": {"url": "https://shop.example.com/?m=ada%40shop.example"}}
    order["userId"] = "ada@shop.example"
    await running.post("/v1/track", order)
    await running.post("/v1/track", named(order, "m-2", properties={"note": "ada@shop.example"}))
    await running.delivered(1)
    await running.stop()
    written = b"".join(file.read_bytes().lower() for file in running.folder.iterdir() if file.is_file())

    assert b"m-2" in written
    assert b"shop.example/" not in written.replace(b"shop.example.com/", b"")
    assert b"ada@" not in written
    assert b"ada%40" not in written
    assert hash_email("ada@shop.example") == running.impact.conversions[0].form["CustomerEmail"]


async def test_what_was_answered_is_delivered_after_a_restart(shop: Shop, order: dict[str, Any]) -> None:
    """impact.com was away; the service was stopped and started; the order is there."""
    shop.impact.script([{"match": {"path": "/Conversions"}, "status": 503}])
    await shop.start()
    await shop.post("/v1/track", order)
    await shop.until("spool_ended_total", 1, result="held", reason="overload")
    await shop.stop()
    shop.impact.script([])
    before = len(shop.impact.calls)
    await shop.start()
    await shop.delivered(before + 1)

    assert "o-1" == shop.impact.conversions[-1].form["OrderId"]


async def test_a_corrected_configuration_applies_to_what_waits(shop: Shop, order: dict[str, Any]) -> None:
    """The token was wrong: orders wait, the file is corrected and read again, and they go."""
    shop.write(destination='eventTypeId = "1"')
    impact = shop.impact
    impact.script([{"match": {"path": "/Conversions"}, "status": 403}])
    await shop.start()
    await shop.post("/v1/track", order)
    await shop.until("spool_ended_total", 1, result="held", reason="credentials")
    shop.write(destination='eventTypeId = "2"')
    shop.service.reload()
    impact.script([])
    await shop.until("spool_ended_total", 1, result="sent", reason="ok")

    assert "2" == impact.conversions[-1].form["EventTypeId"]


async def test_a_file_that_cannot_be_used_changes_nothing(shop: Shop, page: dict[str, Any]) -> None:
    """The one that runs stays, and the log names the mistake."""
    await shop.start()
    shop.write(destination='campaignid = "x"')
    shop.service.reload()
    status, _ = await shop.post("/v1/page", page)
    await shop.delivered(1)

    assert 200 == status
    assert 1 == shop.metric("routing_refused_total")


async def test_a_refused_order_is_a_dead_letter(running: Shop, order: dict[str, Any]) -> None:
    """impact.com's words are kept with it."""
    running.impact.script([{"match": {"path": "/Conversions"}, "status": 400}])
    await running.post("/v1/track", order)
    await running.until("spool_ended_total", 1, result="rejected", reason="refused")
    await running.until("spool_dead_letters", 1)


async def test_two_destinations_get_the_event(shop: Shop, order: dict[str, Any]) -> None:
    """Each with its own account, and one that refuses holds up no other."""
    shop.write(more='[destinations.us]\naccountSID = "IRother"\napiKey = "other-token"\ncampaignId = "99"')
    await shop.start()
    await shop.post("/v1/track", order)
    await shop.delivered(2)

    assert {"IRtest", "IRother"} == {call.path.split("/")[2] for call in shop.impact.conversions}


async def test_a_source_feeds_only_its_destinations(shop: Shop, order: dict[str, Any]) -> None:
    """Where it names some."""
    shop.write(
        source='destinations = ["us"]',
        more='[destinations.us]\naccountSID = "IRother"\napiKey = "other-token"\ncampaignId = "99"',
    )
    await shop.start()
    await shop.post("/v1/track", order)
    await shop.delivered(1)

    assert ["IRother"] == [call.path.split("/")[2] for call in shop.impact.conversions]


async def test_integrations_switch_an_event_off(running: Shop, order: dict[str, Any]) -> None:
    """As Segment's specification has it, for the batch or for one item."""
    off, on = {"All": False}, {"All": False, "Impact": True}
    batch = {
        "batch": [named(order, "m-1"), named(order, "m-2", integrations=on, properties={**order["properties"]})],
        "integrations": off,
    }
    _, reply = await running.post("/v1/batch", batch)
    await running.delivered(1)

    assert [(0, "integrations_disabled")] == [(one["index"], one["error"]) for one in reply["results"]]


async def test_the_batchs_context_lies_under_each_items(running: Shop, page: dict[str, Any]) -> None:
    """An item's own words go first, and an item's null hides nothing."""
    shared = {"userAgent": "Shared/1.0", "ip": "203.0.113.9"}
    own = named(page, "m-own", context={"userAgent": "Own/2.0"})
    none = named(page, "m-none", context=None)
    await running.post("/v1/batch", {"batch": [own, none], "context": shared})
    await running.delivered(2)

    agents = {(call.form["UserAgent"], call.form["IpAddress"]) for call in running.impact.calls}
    assert {("Own/2.0", "203.0.113.9"), ("Shared/1.0", "203.0.113.9")} == agents


async def test_a_time_is_kept_for_an_event_without_one(shop: Shop, page: dict[str, Any]) -> None:
    """However late it is delivered, it happened when it came."""
    page.pop("timestamp")
    shop.now = lambda: 1_790_000_000.0
    await shop.start()
    await shop.post("/v1/page", page)
    await shop.delivered(1)

    assert "2026-09-21T14:13:20.000Z" == shop.impact.calls[0].form["EventDate"]


async def test_a_full_spool_asks_to_come_again(shop: Shop, page: dict[str, Any]) -> None:
    """429 with Retry-After, and what is in it is delivered all the same."""
    shop.write(settings="[spool]\nmax_events = 1000")
    shop.impact.script([{"match": {"path": "/PageLoad"}, "status": 503}])
    await shop.start()
    events = [named(page, f"m-{number}", anonymousId=f"a-{number}") for number in range(1000)]
    first, _ = await shop.post("/v1/batch", {"batch": events})
    async with shop.http.post(f"{shop.service.ingest_url}/v1/page", json=page, headers=BASIC) as response:
        body = msgspec.json.decode(await response.read())

    assert (200, 429, "spool_full") == (first, response.status, body["error"])
    assert 1 <= int(response.headers["Retry-After"]) <= 30


async def test_no_sources_no_port(tmp_path: Path, impact: FakeImpact, shop: Shop) -> None:
    """Who only serves RudderStack opens nothing else."""
    shop.write()
    text = shop.file.read_text(encoding="utf-8").replace(f'[sources.shop]\nkeys = ["{KEY}"]\n', "")
    shop.file.write_text(text, encoding="utf-8")
    service = await shop.start()

    assert "" == service.ingest_url
    assert not (tmp_path / "var" / "spool.db").exists()
    assert [] == impact.calls


async def test_a_first_source_opens_the_port_at_the_next_start(shop: Shop, page: dict[str, Any]) -> None:
    """Reading the file again cannot open a port; the log says so, and what runs goes on."""
    shop.write()
    whole = shop.file.read_text(encoding="utf-8")
    shop.file.write_text(whole.replace(f'[sources.shop]\nkeys = ["{KEY}"]\n', ""), encoding="utf-8")
    service = await shop.start()
    shop.file.write_text(whole, encoding="utf-8")
    service.reload()
    refused = shop.metric("routing_refused_total")
    await shop.stop()
    await shop.start()
    status, _ = await shop.post("/v1/page", page)

    assert (1, 200) == (refused, status)


async def test_above_its_memory_ceiling_the_service_takes_nothing(shop: Shop) -> None:
    """The sender keeps the event and comes again; a test's process is above the least ceiling there is."""
    shop.environment = {"IMPACT_PLUGIN__SERVER__MAX_MEMORY_MB": "64"}
    await shop.start()
    status, told = await shop.post("/v1/track", {"event": "x", "anonymousId": "a"})

    assert (status, told["error"]) == (503, "memory")
