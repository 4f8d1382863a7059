"""FakeImpact over a real socket: its answers, its memory and its scripted faults."""

import asyncio
import base64
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from impact_plugin.cli.fake_impact import fake_impact
from impact_plugin.testing.fake_impact import Call, FakeImpact
from impact_plugin.testing.impact_script import Match, Rule, ScriptError

NOW = 1_772_366_400.25
SID = "IRexample"
PATH = f"/Advertisers/{SID}/Conversions"
JSON = {"Accept": "application/json"}
CONVERSION = {
    "CampaignId": "1000",
    "EventTypeId": "2000",
    "EventDate": "2026-03-01T12:00:00+00:00",
    "OrderId": "order-1",
    "ClickId": "click-1",
}
PAGE_LOAD = {
    "CampaignId": "1000",
    "EventDate": "2026-03-01T12:00:00Z",
    "CustomProfileId": "visitor-1",
    "PageUrl": "https://shop.example.com/",
}


def basic(user: str = SID, key: str = "key") -> dict[str, str]:
    """Write HTTP Basic credentials."""
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{key}'.encode()).decode()}"}


class Client:
    """Sends what the plugin would send."""

    def __init__(self, session: aiohttp.ClientSession, impact: FakeImpact) -> None:
        self.session = session
        self.impact = impact

    async def send(self, method: str, path: str, **options: Any) -> tuple[int, Mapping[str, str], str]:
        """Return status, headers and text of one answer."""
        async with self.session.request(method, self.impact.url + path, **options) as answer:
            return answer.status, answer.headers.copy(), await answer.text()

    async def json(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Return status and decoded body of one answer."""
        async with self.session.request(method, self.impact.url + path, **options) as answer:
            return answer.status, await answer.json()

    async def convert(self, headers: Mapping[str, str] | None = None, **changes: str) -> tuple[int, Any]:
        """Post one conversion."""
        return await self.json(
            "POST", PATH, data={**CONVERSION, **changes}, headers={**JSON, **basic(), **(headers or {})}
        )

    async def load_page(self, headers: Mapping[str, str] | None = None, **changes: str) -> tuple[int, Any]:
        """Post one page load."""
        return await self.json("POST", "/PageLoad", data={**PAGE_LOAD, **changes}, headers={**JSON, **(headers or {})})


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Yield an HTTP client."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def client(session: aiohttp.ClientSession) -> AsyncIterator[Client]:
    """Yield a client of a FakeImpact that notices duplicates within ten seconds."""
    async with FakeImpact(dedupe_window=10, clock=lambda: NOW) as impact:
        yield Client(session, impact)


async def test_conversion_is_queued(client: Client) -> None:
    """A valid conversion is answered with the submission that will hold its result."""
    status, body = await client.convert()
    assert (status, body["Status"]) == (200, "QUEUED")
    assert body["QueuedUri"].startswith(f"/Advertisers/{SID}/APISubmissions/A-")


async def test_conversion_may_be_json(client: Client) -> None:
    """JSON is judged like the form and remembered as text."""
    status, _ = await client.json("POST", PATH, json={**CONVERSION, "CampaignId": 1000}, headers={**JSON, **basic()})
    assert (status, client.impact.conversions[0].form) == (200, CONVERSION)


async def test_wrong_conversion_lists_its_errors(client: Client) -> None:
    """A refused conversion is answered in the shape of API version 14 and does not count as accepted."""
    error = {"field": "Amount", "level": "ERROR", "message": "must be a plain decimal number"}
    assert (400, {"Status": "ERROR", "errors": [error]}) == await client.convert(Amount="1e+06")
    assert ([call.status for call in client.impact.calls], client.impact.conversions) == ([400], [])


@pytest.mark.parametrize("credentials", [{}, basic(user="IRother"), basic(key=""), {"Authorization": "Bearer x"}])
async def test_wrong_credentials_are_401(client: Client, credentials: dict[str, str]) -> None:
    """Without the account's own HTTP Basic credentials nothing is judged or accepted."""
    status, headers, text = await client.send("POST", PATH, data=CONVERSION, headers={**JSON, **credentials})
    assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="impact.com"')
    assert '"Message":"Authentication failed"' in text


async def test_configured_token_is_checked(session: aiohttp.ClientSession) -> None:
    """With a token configured, any other is refused."""
    async with FakeImpact(auth_token="right") as impact:
        client = Client(session, impact)
        statuses = [(await client.convert(basic(key=key)))[0] for key in ("wrong", "right")]
    assert statuses == [401, 200]


async def test_token_without_scope_is_403(session: aiohttp.ClientSession) -> None:
    """A stand-in told to forbid does so for good credentials only."""
    async with FakeImpact(forbidden=True) as impact:
        client = Client(session, impact)
        statuses = [(await client.convert(basic(user=user)))[0] for user in (SID, "IRother")]
    assert statuses == [403, 401]


async def test_page_load_answers_click_and_session(client: Client) -> None:
    """A page load gets a click id, the start of its session and an empty list of warnings."""
    status, body = await client.load_page()
    assert (status, body["sessionStart"], body["warnings"]) == (200, "2026-03-01T12:00:00+00:00", [])
    assert {"clickId", "sessionStart", "warnings"} == set(body)
    assert [call.form for call in client.impact.page_loads] == [PAGE_LOAD]


async def test_tracking_link_answers_its_landing_page(client: Client) -> None:
    """A page load of a tracking link learns where the link leads."""
    link = "https://partner.example.com/c/1/2/3?u=https%3A%2F%2Fshop.example.com%2Fsale"
    _, body = await client.load_page(PageUrl=link)
    assert body["landingPage"] == "https://shop.example.com/sale"


async def test_page_load_warns(client: Client) -> None:
    """A page load without an address is accepted with a warning."""
    data = {name: value for name, value in PAGE_LOAD.items() if name != "PageUrl"}
    status, body = await client.json("POST", "/PageLoad", data=data, headers=JSON)
    assert (status, [warning["field"] for warning in body["warnings"]]) == (200, ["PageUrl"])


async def test_wrong_page_load_lists_errors_and_warnings(client: Client) -> None:
    """A refused page load has the tracking host's own shape."""
    status, body = await client.load_page(CampaignId="x")
    error = {"field": "CampaignId", "level": "ERROR", "message": "must be an integer"}
    assert (400, {"errors": [error], "warnings": []}) == (status, body)


async def test_credentials_on_the_tracking_host_are_refused(client: Client) -> None:
    """The tracking host asks for no credentials, so that sending them only spreads the secret."""
    status, body = await client.load_page(basic())
    assert (status, [error["field"] for error in body["errors"]]) == (400, ["Authorization"])


async def test_lenient_server_tolerates_what_impact_does(session: aiohttp.ClientSession) -> None:
    """Without strictness a page load may carry credentials and an e-mail address in clear."""
    async with FakeImpact(strict=False) as impact:
        status, _ = await Client(session, impact).load_page(basic(), CustomerEmail="buyer@example.com")
    assert status == 200


async def test_email_inside_an_address_is_refused(client: Client) -> None:
    """An e-mail address in the query of a URL is refused, encoded or not."""
    status, body = await client.load_page(PageUrl="https://shop.example.com/?email=buyer%40example.com")
    assert (status, [error["field"] for error in body["errors"]]) == (400, ["PageUrl"])


async def test_parameters_in_the_query_are_refused(client: Client) -> None:
    """Only the API version may stand in the query."""
    headers = {**JSON, **basic()}
    allowed, _ = await client.json("POST", f"{PATH}?IrVersion=14", data=CONVERSION, headers=headers)
    refused, _ = await client.json("POST", f"{PATH}?Text1=a", data=CONVERSION, headers=headers)
    assert (allowed, refused) == (200, 400)


async def test_missing_content_type_is_400(client: Client) -> None:
    """A body of no declared type is refused."""
    status, _, text = await client.send(
        "POST", PATH, data=b"CampaignId=1", headers={**JSON, **basic()}, skip_auto_headers=["Content-Type"]
    )
    assert status == 400
    assert '"field":"Content-Type"' in text


async def test_answer_is_xml_unless_json_is_asked_for(client: Client) -> None:
    """Without ``Accept: application/json`` both success and failure come as XML."""
    _, headers, queued = await client.send("POST", PATH, data=CONVERSION, headers=basic())
    _, _, refused = await client.send("POST", PATH, data={**CONVERSION, "A<b": "1"}, headers=basic())
    assert headers["Content-Type"] == "application/xml; charset=utf-8"
    assert queued.startswith("<ImpactRadiusResponse><Status>QUEUED</Status><QueuedUri>/Advertisers/")
    assert "<Status>ERROR</Status><Errors><Error><Field>A&lt;b</Field>" in refused


async def test_unknown_path_and_method(client: Client) -> None:
    """Other paths are 404, other methods 405; both are remembered, neither is accepted."""
    missing, _ = await client.json("POST", "/Advertisers//Conversions", data=CONVERSION, headers=JSON)
    wrong, _ = await client.json("GET", "/PageLoad", headers=JSON)
    assert (missing, wrong) == (404, 405)
    assert [(call.status, call.accepted) for call in client.impact.calls] == [(404, False), (405, False)]


async def test_calls_are_shown_with_masked_credentials(client: Client) -> None:
    """The memory holds what came in, but of the credentials only who used them."""
    await client.convert()
    status, body = await client.json("GET", "/_calls")
    call = body["calls"][0]
    assert (
        status,
        len(body["calls"]),
        call["method"],
        call["path"],
        call["form"],
    ) == (200, 1, "POST", PATH, CONVERSION)
    assert (call["status"], call["received_at"]) == (200, NOW)
    assert f"Basic {SID}:***" == call["headers"]["Authorization"]
    assert f"Basic {SID}:***" == client.impact.calls[0].headers["Authorization"]


@pytest.mark.parametrize(("sent", "shown"), [("Bearer x", "Bearer ***"), ("Basic !", "Basic ***"), ("x", "***")])
async def test_unreadable_credentials_are_masked_whole(client: Client, sent: str, shown: str) -> None:
    """Credentials in an unknown form show their scheme at most."""
    await client.convert({"Authorization": sent})
    assert shown == client.impact.calls[0].headers["Authorization"]


async def test_calls_are_forgotten_on_request(client: Client) -> None:
    """Forgetting also forgets the orders, so that the next one is no duplicate."""
    await client.convert()
    status, _, _ = await client.send("DELETE", "/_calls")
    await client.convert()
    assert (status, [call.duplicate for call in client.impact.calls]) == (204, [False])


async def test_memory_is_bounded(session: aiohttp.ClientSession) -> None:
    """Beyond its bound the server forgets the oldest calls and orders."""
    async with FakeImpact(maxlen=2, dedupe_window=60) as impact:
        client = Client(session, impact)
        for order in ("a", "b", "c", "a"):
            await client.convert(OrderId=order)
        assert [(call.form["OrderId"], call.duplicate) for call in impact.calls] == [("c", False), ("a", False)]


async def test_duplicates_are_answered_alike_and_marked(client: Client) -> None:
    """The second conversion of an order is queued too, and known to be the same; another event type is not."""
    answers = [await client.convert(), await client.convert(), await client.convert(EventTypeId="3000")]
    assert [status for status, _ in answers] == [200, 200, 200]
    assert [call.duplicate for call in client.impact.conversions] == [False, True, False]
    assert client.impact.duplicates == 1


async def test_duplicates_are_counted_within_the_window_only(session: aiohttp.ClientSession) -> None:
    """An order older than the window, measured from the first of its kind, is new again."""
    moments = iter([0.0, 9.0, 10.0, 19.0])
    async with FakeImpact(dedupe_window=10, clock=lambda: next(moments)) as impact:
        for _ in range(4):
            await Client(session, impact).convert()
        assert [call.duplicate for call in impact.calls] == [False, True, False, True]


async def test_generated_order_ids_are_never_duplicates(client: Client) -> None:
    """The macro stands for an order id that impact.com makes up anew each time."""
    for _ in range(2):
        await client.convert(OrderId="IR_AN_64_TS")
    assert client.impact.duplicates == 0


async def test_refused_conversion_is_no_first_of_its_order(client: Client) -> None:
    """Only accepted conversions are compared."""
    client.impact.script([{"status": 503, "times": 1}])
    statuses = [(await client.convert())[0] for _ in range(2)]
    assert (statuses, client.impact.duplicates) == ([503, 200], 0)


async def test_script_serves_its_times_then_stops(client: Client) -> None:
    """A rule is used as often as it says, with the documented error body, and then passed over."""
    client.impact.script([Rule(status=500, times=2)])
    answers = [await client.convert() for _ in range(3)]
    assert [status for status, _ in answers] == [500, 500, 200]
    assert answers[0][1] == {"Status": "ERROR", "Message": "Internal Server Error"}


async def test_first_matching_rule_wins(client: Client) -> None:
    """Rules are tried in order, by part of the path and by exact parameters."""
    client.impact.script(
        [
            Rule(match=Match(path="Conversions", parameter={"OrderId": "other"}), status=402),
            Rule(match=Match(path="Conversions"), status=502),
            Rule(status=503),
        ]
    )
    assert [
        (await client.convert(OrderId="other"))[0],
        (await client.convert())[0],
        (await client.load_page())[0],
    ] == [402, 502, 503]


async def test_scripted_success_skips_the_checks(client: Client) -> None:
    """A scripted status below 300 accepts whatever came, in the endpoint's own shape."""
    client.impact.script([{"status": 201}])
    status, body = await client.convert(Amount="many")
    assert (status, body["Status"], len(client.impact.conversions)) == (201, "QUEUED", 1)


async def test_scripted_body_is_sent_as_given(client: Client) -> None:
    """Text goes out as it is, under the scripted headers; an unassigned status needs no phrase."""
    rule = {"status": 599, "body": "<html>busy</html>", "headers": {"content-type": "text/html", "X-Via": "proxy"}}
    client.impact.script([rule])
    status, headers, text = await client.send("POST", "/PageLoad", data=PAGE_LOAD, headers=JSON)
    assert (
        status,
        headers["Content-Type"],
        headers["X-Via"],
        text,
    ) == (599, "text/html", "proxy", "<html>busy</html>")


async def test_scripted_json_body_means_success_unless_told(client: Client) -> None:
    """A body alone is answered with 200, JSON null included."""
    client.impact.script([{"body": {"ActionId": "1"}, "times": 1}, {"body": None}])
    assert await client.convert() == (200, {"ActionId": "1"})
    assert await client.convert() == (200, None)


async def test_xml_is_scripted_whatever_the_client_accepts(client: Client) -> None:
    """An answer can be forced into XML."""
    client.impact.script([{"status": 429, "xml": True}])
    _, headers, text = await client.send("POST", PATH, data=CONVERSION, headers={**JSON, **basic()})
    expected = "<ImpactRadiusResponse><Status>ERROR</Status><Message>Too Many Requests</Message></ImpactRadiusResponse>"
    assert ("application/xml; charset=utf-8", expected) == (headers["Content-Type"], text)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("x-ratelimit", {"X-RateLimit-Limit": "9", "X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "3"}),
        ("x-ratelimit-epoch", {"X-RateLimit-Reset": "1772366403"}),
        (
            "x-ratelimit-hour",
            {"X-RateLimit-Limit-hour": "9", "X-RateLimit-Remaining-hour": "3", "RateLimit-Reset": "3"},
        ),
        ("ratelimit-draft", {"RateLimit-Limit": "9", "RateLimit-Remaining": "3", "RateLimit-Reset": "3"}),
        ("retry-after-seconds", {"Retry-After": "3"}),
        ("retry-after-float", {"Retry-After": "2.5"}),
    ],
)
async def test_rate_limit_headers(client: Client, family: str, expected: dict[str, str]) -> None:
    """Each family announces the same limit in its own form, also on an ordinary answer."""
    client.impact.script([{"rate_limit": family, "limit": 9, "remaining": 3, "reset_after": 2.5}])
    status, headers, _ = await client.send("POST", "/PageLoad", data=PAGE_LOAD, headers=JSON)
    assert (200, expected) == (status, {name: headers[name] for name in expected})


async def test_retry_after_date_is_never_early(client: Client) -> None:
    """The date form is a whole second, not before the moment it stands for."""
    client.impact.script([{"status": 429, "rate_limit": "retry-after-date", "reset_after": 2.5}])
    _, headers, _ = await client.send("POST", "/PageLoad", data=PAGE_LOAD, headers=JSON)
    assert parsedate_to_datetime(headers["Retry-After"]).timestamp() == 1_772_366_403


@pytest.mark.parametrize(("moment", "accepted"), [("before", 0), ("after", 1)])
async def test_connection_is_dropped(client: Client, moment: str, accepted: int) -> None:
    """The client sees no answer, whether or not the conversion was taken; the call is remembered with status 0."""
    client.impact.script([{"reset": moment, "times": 1}])
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.convert()
    assert ([0], accepted) == ([call.status for call in client.impact.calls], len(client.impact.conversions))
    assert (200, moment == "after") == ((await client.convert())[0], client.impact.calls[1].duplicate)


async def test_delayed_call_is_taken_before_the_wait(client: Client) -> None:
    """A client that gives up during a delay has nevertheless sent its conversion."""
    client.impact.script([{"delay": 120}])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.convert(), 0.05)
    assert [call.accepted for call in client.impact.calls] == [True]


async def test_delay_ends_with_the_ordinary_answer(client: Client) -> None:
    """After the delay the call is answered as if nothing had happened."""
    client.impact.script([{"delay": 0.01}])
    assert (await client.load_page())[0] == 200


async def test_script_is_put_and_shown(client: Client) -> None:
    """A script sent over HTTP replaces the old one and can be read back unchanged."""
    script = {"rules": [{"match": {"path": "PageLoad"}, "times": 1, "status": 503}]}
    assert (200, script) == await client.json("PUT", "/_script", json=script)
    assert (200, script) == await client.json("GET", "/_script")
    assert [(await client.load_page())[0] for _ in range(2)] == [503, 200]


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"status": 99}, "$.rules[0].status"),
        ({"delay": 121}, "$.rules[0].delay"),
        ({"times": 0}, "$.rules[0].times"),
        ({"rate_limit": "x"}, "$.rules[0].rate_limit"),
        ({"match": {"host": "x"}}, "host"),
        ({"stauts": 1}, "stauts"),
        ({"headers": {"X": "a\r\nb"}}, "$.rules[0].headers"),
        ({"headers": {"Content-Length": "1"}}, "headers: Content-Length"),
        ({"reset": "after", "status": 500}, "reset"),
    ],
)
async def test_wrong_script_names_its_field(client: Client, rule: dict[str, Any], field: str) -> None:
    """A wrong script is refused over HTTP and in Python, both naming the field, and the old one stays."""
    client.impact.script([{"status": 503}])
    status, body = await client.json("PUT", "/_script", json={"rules": [rule]})
    assert status == 400
    assert field in body["Errors"][0]["Message"]
    with pytest.raises(ScriptError) as refusal:
        client.impact.script([rule])
    assert field in str(refusal.value)
    assert (await client.load_page())[0] == 503


async def test_script_that_is_no_json_is_400(client: Client) -> None:
    """A body that cannot be decoded is refused too."""
    status, _ = await client.json("PUT", "/_script", data=b"{")
    assert status == 400


async def test_unknown_control_is_refused_and_not_remembered(client: Client) -> None:
    """Control paths have their own methods, and none of their calls is remembered."""
    assert [(await client.json("GET", "/_nothing"))[0], (await client.json("POST", "/_calls"))[0]] == [404, 405]
    assert client.impact.calls == []


async def test_many_calls_at_once_are_all_remembered(client: Client) -> None:
    """Concurrent conversions are taken one by one, none lost and none doubled."""
    await asyncio.gather(*(client.convert(OrderId=f"order-{number}") for number in range(200)))
    assert (len({call.form["OrderId"] for call in client.impact.conversions}), client.impact.duplicates) == (200, 0)


async def test_url_exists_only_while_running() -> None:
    """The address is known from the start to the end of the context."""
    impact = FakeImpact()
    async with impact:
        assert impact.url.startswith("http://127.0.0.1:")
    with pytest.raises(RuntimeError):
        _ = impact.url


async def test_taken_port_is_reported() -> None:
    """A port in use raises at the start and leaves nothing running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        impact = FakeImpact(port=taken.getsockname()[1])
        with pytest.raises(OSError, match="address already in use"):
            await impact.__aenter__()
    with pytest.raises(RuntimeError):
        _ = impact.url


def test_call_is_immutable() -> None:
    """A remembered call cannot be changed."""
    call = Call("GET", "/", {}, {}, 200, NOW)
    with pytest.raises(AttributeError):
        call.status = 500  # type: ignore[misc]


@pytest.mark.skipif(sys.platform == "win32", reason="asyncio handles no signals there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_command_serves_until_a_signal(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints one line with its address and ends without an error when it is told to stop."""
    command = asyncio.create_task(fake_impact(port=0))
    line = ""
    while not line:
        await asyncio.sleep(0.005)
        line = capsys.readouterr().out
    signal.raise_signal(number)
    await asyncio.wait_for(command, 5)
    assert line.startswith("FakeImpact listens on http://127.0.0.1:")
    assert (line.count("\n"), capsys.readouterr().out) == (1, "")
