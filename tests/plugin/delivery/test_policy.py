"""The table of verdicts: what each response of impact.com means for the event, and what the operator reads."""

import pytest

from impact_plugin.delivery.policy import (
    MAX_TEXT_LENGTH,
    MAX_UNCLEAR_RETRIES,
    Cause,
    ImpactResponse,
    NoResponse,
    judge,
    parse_response_body,
)

QUEUED = b'{"Status":"QUEUED","QueuedUri":"/Advertisers/IRtest/APISubmissions/A-1"}'
TABLE: list[tuple[int, str, Cause]] = [
    (200, "delivered", Cause.OK),
    (201, "delivered", Cause.OK),
    (202, "delivered", Cause.OK),
    (204, "delivered", Cause.OK),
    (301, "retry", Cause.UNEXPECTED),
    (302, "retry", Cause.UNEXPECTED),
    (304, "retry", Cause.UNEXPECTED),
    (400, "rejected", Cause.REFUSED),
    (401, "retry", Cause.CREDENTIALS),
    (402, "retry", Cause.UNCLEAR),
    (403, "retry", Cause.CREDENTIALS),
    (404, "retry", Cause.CREDENTIALS),
    (405, "retry", Cause.CREDENTIALS),
    (408, "retry", Cause.TRANSIENT),
    (409, "retry", Cause.UNEXPECTED),
    (413, "rejected", Cause.REFUSED),
    (422, "rejected", Cause.REFUSED),
    (425, "retry", Cause.TRANSIENT),
    (429, "retry", Cause.QUOTA),
    (451, "retry", Cause.UNEXPECTED),
    (500, "retry", Cause.TRANSIENT),
    (502, "retry", Cause.TRANSIENT),
    (503, "retry", Cause.OVERLOAD),
    (504, "retry", Cause.TRANSIENT),
    (599, "retry", Cause.TRANSIENT),
]


@pytest.mark.parametrize(("status", "result", "cause"), TABLE)
def test_every_status_has_its_verdict(status: int, result: str, cause: Cause) -> None:
    """One row of the outcome table each."""
    verdict = judge(ImpactResponse(status, b""))

    assert (verdict.result, verdict.cause) == (result, cause)


@pytest.mark.parametrize("status", range(200, 600))
def test_only_the_four_permanent_answers_reject(status: int) -> None:
    """Nothing is given up that might still succeed: only a refusal of the request itself is final."""
    rejected = judge(ImpactResponse(status, b"")).result == "rejected"

    assert rejected == (status in {400, 413, 422})


@pytest.mark.parametrize("attempt", range(8))
def test_an_unclear_answer_is_tried_five_times_more(attempt: int) -> None:
    """402 means only that valid parameters failed; after five more tries it is final."""
    expected = "retry" if attempt < MAX_UNCLEAR_RETRIES else "rejected"

    assert judge(ImpactResponse(402, b""), attempt=attempt).result == expected
    assert judge(ImpactResponse(429, b""), attempt=attempt).result == "retry"


@pytest.mark.parametrize(
    ("written", "cause"), [(True, Cause.AMBIGUOUS), (False, Cause.NOT_SENT)], ids=["written", "not written"]
)
def test_no_answer_is_tried_again(written: bool, cause: Cause) -> None:
    """The text says whether impact.com may have the conversion all the same."""
    verdict = judge(NoResponse(written=written, detail="ServerTimeoutError"))

    assert (verdict.result, verdict.cause) == ("retry", cause)
    assert verdict.text == f"{cause}: ServerTimeoutError"


ERRORS: dict[str, tuple[bytes, str]] = {
    "brand API": (
        b'{"Status":"ERROR","Message":"Validation failed","Errors":[{"Field":"OrderId","Message":"is required"}]}',
        "Validation failed; OrderId: is required",
    ),
    "conversions": (b'{"Status":"ERROR","errors":[{"field":"EventDate","message":"bad"}]}', "ERROR; EventDate: bad"),
    "page load": (
        b'{"errors":[{"field":"CampaignId","level":"ERROR","message":"unknown"}],"warnings":[]}',
        "ERROR; CampaignId: unknown",
    ),
    "lower case": (b'{"status":"error","message":"no"}', "no"),
    "error texts": (b'{"errors":["no such campaign"]}', "ERROR; request: no such campaign"),
    "XML": (
        (
            b"<?xml version='1.0'?><ImpactRadiusResponse><Status>ERROR</Status><Message>Bad &amp; wrong</Message>"
            b"<Errors><Error><Field>OrderId</Field><Message>is required</Message></Error></Errors>"
            b"</ImpactRadiusResponse>"
        ),
        "Bad & wrong; OrderId: is required",
    ),
}


@pytest.mark.parametrize("shape", ERRORS)
def test_every_shape_of_error_body_is_read(shape: str) -> None:
    """The four shapes that impact.com's pages show, and their neighbours."""
    body, text = ERRORS[shape]
    parsed = parse_response_body(body)

    assert (parsed.failed, parsed.text) == (True, text)


@pytest.mark.parametrize("shape", ERRORS)
def test_an_error_in_a_200_is_an_error(shape: str) -> None:
    """A refusal in a successful answer is still a refusal, and final."""
    verdict = judge(ImpactResponse(200, ERRORS[shape][0]))

    assert (verdict.result, verdict.cause) == ("rejected", Cause.BODY_ERROR)
    assert ERRORS[shape][1] in verdict.text


@pytest.mark.parametrize(
    "body",
    [
        QUEUED,
        b'{"Status":"OK"}',
        b'{"clickId":"c","warnings":[{"field":"X","level":"WARNING","message":"m"}]}',
        b'{"errors":[],"warnings":[]}',
        b'{"errors":null}',
        b'{"errors":[{"field":"X","level":"WARNING","message":"m"}]}',
        b"<R><Status>QUEUED</Status></R>",
        b"",
        b"ok",
        b"[]",
        b"\xff\xfe",
        b"[" * 5000,
    ],
)
def test_a_success_is_a_success(body: bytes) -> None:
    """Warnings, empty bodies and bodies nobody foresaw do not make a delivered conversion fail, nor us."""
    assert judge(ImpactResponse(200, body)).result == "delivered"


@pytest.mark.parametrize(
    "body", [b"<" * 70000, b"<Status>" * 9000, b"<html>" + b"x" * 100_000, b'{"Message":' + b"9" * 9000]
)
def test_a_hostile_body_is_read_in_bounds(body: bytes) -> None:
    """The text for the router stays short whatever came back."""
    assert len(judge(ImpactResponse(500, body)).text) <= MAX_TEXT_LENGTH


@pytest.mark.parametrize(
    "body",
    [
        b'{"Status":"ERROR","Message":"CustomerEmail jane@example.com is not a hash"}',
        b'{"Status":"ERROR","Errors":[{"Field":"CustomerEmail","Message":"jane%40example.com"}]}',
        b"<R><Status>ERROR</Status><Message>jane@example.com</Message></R>",
        b"jane@example.com is unknown",
    ],
)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_address_in_an_answer_goes_no_further(body: bytes, status: int) -> None:
    """impact.com may quote what it was sent; the router's database does not get it from us."""
    assert "jane" not in judge(ImpactResponse(status, body)).text


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "check Account SID, Auth Token"), (403, "scopes"), (404, "check Account SID"), (429, "quota is used up")],
)
def test_the_operator_reads_what_to_do(status: int, hint: str) -> None:
    """Where somebody must act, the text says how."""
    assert hint in judge(ImpactResponse(status, b"")).text
    assert f"answered {status}" in judge(ImpactResponse(status, b"")).text
