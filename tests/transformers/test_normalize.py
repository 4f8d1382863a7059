"""Each rule by which a value becomes the text of a form field, as a table of what goes in and what comes out."""

import hashlib
import time
from decimal import Decimal
from typing import Any, Final

import pytest

from impact_transformers import DestinationConfig, NoticeReason, Secret, fields, normalize
from impact_transformers.outcome import UnusableValueError

SHA1: Final = hashlib.sha1(b"buyer@example.com", usedforsecurity=False).hexdigest()
SHA256: Final = hashlib.sha256(b"buyer@example.com").hexdigest()
NO_LEAVES: Final[tuple[Any, ...]] = (None, [], {}, ["x"], {"x": 1})


def rule(name: fields.RuleName, *, hash_emails: bool = False, **limits: Any) -> fields.ValueRule:
    """Bind a rule to the limits of a row, as the mapping tables do."""
    row = fields.MappingRow("Parameter", ("properties.value",), name, "For this test.", **limits)
    config = DestinationConfig(
        account_sid="IRexample",
        api_key=Secret("t"),
        campaign_id="1000",
        email_as_customer_id="hash" if hash_emails else "drop",
    )
    return fields.rule_of(row, config)


def left_out(found: fields.ValueRule, value: Any) -> NoticeReason:
    """Return the notice with which the rule leaves the value out."""
    with pytest.raises(UnusableValueError) as caught:
        found(value)
    assert caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("  x ", "x"),
        ("", None),
        (" \t\n", None),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (9217374917471, "9217374917471"),
        (12.0, "12"),
        (12.5, "12.5"),
        (1e6, "1000000"),
        (1e22, "10000000000000000000000"),
        (0.000001, "0.000001"),
        *((value, None) for value in NO_LEAVES),
    ],
)
def test_as_text(value: Any, expected: str | None) -> None:
    """Leaves become text in full, never with an exponent; everything else is no text."""
    assert expected == normalize.as_text(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("buyer@example.com", SHA1),
        (" Buyer@EXAMPLE.com\n", SHA1),
        (SHA1, SHA1),
        (SHA1.upper(), SHA1),
        (SHA256, SHA256),
        (f" {SHA256} ", SHA256),
        (SHA1[:-1], None),
        ("no address", None),
        ("", None),
        (7, None),
        (True, None),
        *((value, None) for value in NO_LEAVES),
    ],
)
def test_email(value: Any, expected: str | None) -> None:
    """Addresses are stripped, lower-cased and hashed with SHA-1; hashes pass; the rest is left out."""
    assert expected == normalize.email(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("buyer@example.com", True),
        ("mail to <buyer@example.com>!", True),
        ("buyer%40example.com", True),
        ("buyer%2540example.com", True),
        ("buyer%252540example.com", True),
        ("https://x.example.com/?m=first.last+tag@example.com", True),
        ("o'buyer'@example.com", True),
        ("жена@пример.рф", True),
        ("buyer@localhost", False),
        ("@example.com", False),
        ("50% off @home", False),
        ("https://user:pass@", False),
        ("", False),
        ("100%", False),
    ],
)
def test_holds_email(text: str, expected: bool) -> None:
    """An address is found in clear and percent-encoded, also with quotes in it and in other scripts."""
    assert expected == normalize.holds_email(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://x.example.com/?m=buyer@example.com&q=1", "https://x.example.com/?m=redacted&q=1"),
        ("https://x.example.com/?m=buyer%40example.com", "https://x.example.com/?m=redacted"),
        ("https://x.example.com/?m=buyer%2540example.com#top", "https://x.example.com/?m=redacted#top"),
        ("https://x.example.com/?q=100%25", "https://x.example.com/?q=100%25"),
        ("https://x.example.com/?m=a%25%34%30example.com", "https://x.example.com/"),
        ("nothing here", "nothing here"),
        ("follow @shop.example or /%40shop.example", "follow @shop.example or /%40shop.example"),
        ("@shop.example, buyer@example.com", "@shop.example, redacted"),
    ],
)
def test_redact_emails(text: str, expected: str) -> None:
    """Addresses are replaced and the rest stays; where one cannot be replaced alone, the query goes."""
    assert expected == normalize.redact_emails(text)


@pytest.mark.parametrize("text", ["%" + "a" * 16_000, "@" + "a" * 16_000, "a" * 16_000 + "@b", "a%40" * 4_000])
def test_looking_for_emails_takes_time_in_proportion(text: str) -> None:
    """A long text made to be slow costs milliseconds: one event must not stall all the others."""
    started = time.process_time()
    normalize.holds_email(text)
    normalize.redact_emails(text)

    assert time.process_time() - started < 0.2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://shop.example.com/?a=b#c", "https://shop.example.com/?a=b#c"),
        (" https://shop.example.com/ ", "https://shop.example.com/"),
        ("HTTPS://shop.example.com/", "HTTPS://shop.example.com/"),
        ("shopapp://open", "shopapp://open"),
        ("/relative", None),
        ("shop.example.com", None),
        ("", None),
        (7, None),
        *((value, None) for value in NO_LEAVES),
    ],
)
def test_url(value: Any, expected: str | None) -> None:
    """Absolute URLs of any scheme pass; anything else is no URL."""
    assert expected == normalize.url(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://shop.example.com/?q=red shoes", "https://shop.example.com/?q=red%20shoes"),
        ("https://shop.example.com/?q=red\nshoes", "https://shop.example.com/?q=red%0Ashoes"),
        ("https://shop.example.com/?q=red\tshoes ", "https://shop.example.com/?q=red%09shoes"),
        ("https://shop.example.com/?q=red\r\nshoes", "https://shop.example.com/?q=red%0D%0Ashoes"),
    ],
)
def test_white_space_in_a_url_is_encoded(value: str, expected: str) -> None:
    """A URL holds no white space (RFC 3986): impact.com refuses it."""
    assert expected == normalize.url(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("8.8.4.4", "8.8.4.4"),
        (" 8.8.4.4 ", "8.8.4.4"),
        ("172.15.0.1", "172.15.0.1"),
        ("172.32.0.1", "172.32.0.1"),
        ("2001:4860:4860::8888", "2001:4860:4860::8888"),
        ("::ffff:8.8.4.4", "8.8.4.4"),
        ("10.0.0.1", None),
        ("127.0.0.1", None),
        ("169.254.1.1", None),
        ("172.16.0.1", None),
        ("172.31.255.255", None),
        ("192.168.0.1", None),
        ("0.0.0.0", None),
        ("224.0.0.1", None),
        ("255.255.255.255", None),
        ("::1", None),
        ("::", None),
        ("fe80::1%eth0", None),
        ("fd00::1", None),
        ("ff02::1", None),
        ("::ffff:10.0.0.1", None),
        ("8.8.4", None),
        ("8.8.4.256", None),
        ("8.8.4.4, 10.0.0.1", None),
        ("[ip]", None),
        ("a:b", None),
        (134744072, None),
        *((value, None) for value in NO_LEAVES),
    ],
)
def test_ip_address(value: Any, expected: str | None) -> None:
    """Public addresses pass; those of proxies, servers and the local network do not."""
    assert expected == normalize.ip_address(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-03-01T12:00:00.000Z", "2026-03-01T12:00:00.000Z"),
        (" 2026-03-01T12:00:00+02:00 ", "2026-03-01T12:00:00+02:00"),
        ("2026-03-01 12:00:00+02:00", "2026-03-01T12:00:00+02:00"),
        ("2026-03-01T12:00:00", "2026-03-01T12:00:00Z"),
        ("2026-03-01", "2026-03-01T00:00:00Z"),
        (1772366400, "2026-03-01T12:00:00.000Z"),
        (1772366400123, "2026-03-01T12:00:00.123Z"),
        (1772366400.5, "2026-03-01T12:00:00.500Z"),
        ("yesterday", None),
        ("0001-01-01T00:00:00Z", None),
        ("1999-12-31T23:59:59Z", None),
        ("2200-01-01T00:00:00Z", None),
        (0, None),
        (-1, None),
        (10**30, None),
        (10**400, None),
        (True, None),
        ("", None),
        *((value, None) for value in NO_LEAVES),
    ],
)
def test_date(value: Any, expected: str | None) -> None:
    """Times become ISO-8601 with an offset; what is no time of this century or the next is of no use."""
    assert expected == normalize.date(value)


@pytest.mark.parametrize(
    ("value", "expected"), [("EUR", "EUR"), (" usd ", "USD"), ("", None), *((value, None) for value in NO_LEAVES)]
)
def test_currency(value: Any, expected: str | None) -> None:
    """ISO-4217 codes are capitalised; nothing stays nothing."""
    assert expected == normalize.currency(value)


@pytest.mark.parametrize("value", ["EURO", "€", "XXX", "BTC", "US$", 978, True])
def test_currency_left_out(value: Any) -> None:
    """Anything else is left out, and told: money in an unknown currency is not money."""
    assert NoticeReason.PARAMETER_DROPPED == left_out(normalize.currency, value)


def test_the_email_of_a_page_load_is_a_sha1() -> None:
    """impact.com documents SHA-1 for Page Loads; a SHA-256 is left out."""
    assert SHA1 == normalize.email_sha1("buyer@example.com")
    assert NoticeReason.PARAMETER_DROPPED == left_out(normalize.email_sha1, SHA256)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((value, "true") for value in (True, 1, 1.0, "1", "TRUE", "yes", "granted", "allow", " opt_in ")),
        *((value, "false") for value in (False, 0, "0", "False", "no", "DENIED", "deny", "opt_out")),
        *((value, None) for value in ("", "maybe", 2, *NO_LEAVES)),
    ],
)
def test_truth(value: Any, expected: str | None) -> None:
    """The spellings of consent platforms become true or false; anything else tells nothing."""
    assert expected == normalize.truth(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, "NEW"), (False, "EXISTING"), ("Returning", "Returning"), (7, "7"), *((value, None) for value in NO_LEAVES)],
)
def test_customer_status(value: Any, expected: str | None) -> None:
    """True is NEW and false EXISTING; a status of the shop's own passes."""
    assert expected == normalize.customer_status(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Shoes", "Shoes"),
        (["Shoes", "Sale"], "Shoes"),
        (["", None, "Sale"], "Sale"),
        ({"id": 7, "name": "Shoes"}, "7"),
        ({"name": "Shoes"}, "Shoes"),
        ([], None),
        ({}, None),
        ([["Shoes"]], None),
        (None, None),
    ],
)
def test_first_text(value: Any, expected: str | None) -> None:
    """A category is a text, a list or an object: the first text counts."""
    assert expected == normalize.first_text(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("SPRING", "SPRING"),
        (2026, "2026"),
        (["SPRING"], "SPRING"),
        ({"code": "SPRING", "amount": "2.00"}, "SPRING"),
        ([{"code": "SPRING"}, None, ["X"]], "SPRING"),
        ([], None),
        ({}, None),
        (None, None),
    ],
)
def test_coupon(value: Any, expected: str | None) -> None:
    """A code is a text or in an object, also as the only one of a list."""
    assert expected == normalize.coupon(value)


def test_several_coupons() -> None:
    """impact.com takes one code: the first is sent, all are told."""
    with pytest.raises(UnusableValueError) as caught:
        normalize.coupon([{"code": "SPRING"}, "VIP"])

    assert ("SPRING", NoticeReason.SEVERAL_COUPONS) == (caught.value.instead, caught.value.reason)
    assert "SPRING, VIP" in caught.value.detail


@pytest.mark.parametrize(
    ("value", "expected"),
    [("31415", "31415"), (31415, "31415"), ("", None), *((v, None) for v in NO_LEAVES), (True, None)],
)
def test_integer(value: Any, expected: str | None) -> None:
    """Whole numbers pass, also as text."""
    assert expected == rule("integer", digits=5)(value)


@pytest.mark.parametrize("value", ["314159", "3.14", "-1", "x", "٣"])
def test_integer_left_out(value: str) -> None:
    """What is no whole number of that length is left out, and told."""
    assert NoticeReason.PARAMETER_DROPPED == left_out(rule("integer", digits=5), value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (19, "19.00"),
        (19.9, "19.90"),
        ("19.9", "19.90"),
        (0, "0.00"),
        (0.1 + 0.2, "0.30"),
        (2.675, "2.68"),
        ("2.675", "2.68"),
        (1.005, "1.01"),
        (-5, "-5.00"),
        (1000000, "1000000.00"),
        (1e6, "1000000.00"),
        (99999999999999, "99999999999999.00"),
        (Decimal("22.5"), "22.50"),
        ("1.234,50 €", "1234.50"),
        ("-0.001", "0.00"),
        ("", None),
        (None, None),
    ],
)
def test_money(value: Any, expected: str | None) -> None:
    """Amounts have two decimals, rounded half up as written, without exponent or grouping."""
    assert expected == rule("money", digits=14)(value)


@pytest.mark.parametrize(
    "value", [10**14, 1e14, "100000000000000", -(10**14), 1e300, 10**400, True, "abc", [], {}, float("nan")]
)
def test_money_left_out(value: Any) -> None:
    """An amount with more digits than impact.com takes, or that is none, is left out, whatever its JSON type."""
    assert NoticeReason.PARAMETER_DROPPED == left_out(rule("money", digits=14), value)


@pytest.mark.parametrize("value", [99_999_999.995, "99999999.995"])
def test_money_rounded_up_keeps_to_its_digits(value: Any) -> None:
    """Rounding must not add a digit: nothing with nine digits is sent where eight are allowed."""
    try:
        text = rule("money", digits=8)(value)
    except UnusableValueError:
        text = None

    assert text is None or len(text.partition(".")[0]) <= 8


@pytest.mark.parametrize(("overlong", "expected"), [("cut", "abc"), ("keep", "abc def"), ("drop", None)])
def test_text_too_long(overlong: normalize.Overlong, expected: str | None) -> None:
    """Longer text is cut without a trailing space, kept, or left out, as its row says."""
    found = rule("text", max=4, overlong=overlong)
    if expected is None:
        assert NoticeReason.PARAMETER_DROPPED == left_out(found, " abc def ")
    else:
        assert expected == found(" abc def ")


@pytest.mark.parametrize("value", [True, False, "", *NO_LEAVES])
def test_identifier_of_nothing(value: Any) -> None:
    """Truth values, empty text, objects and lists are no ids."""
    assert rule("identifier", max=64)(value) is None


@pytest.mark.parametrize(("value", "expected"), [("u-1", "u-1"), (7, "7"), (True, None), (None, None)])
def test_visitor_id(value: Any, expected: str | None) -> None:
    """Ids of persons pass, whatever becomes of e-mails."""
    assert expected == rule("visitor_id", max=70)(value)
    assert expected == rule("visitor_id", hash_emails=True, max=70)(value)


@pytest.mark.parametrize("value", ["Buyer@example.com", "buyer%40example.com"])
def test_an_email_as_visitor_id(value: str) -> None:
    """An e-mail used as an id is left out with a notice, or hashed where the operator chose that."""
    assert NoticeReason.PARAMETER_DROPPED == left_out(rule("visitor_id", max=70), value)
    assert rule("visitor_id", hash_emails=True, max=70)(value) == SHA1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("6D92078A-8246-4BA4-AE5B-76104861E7DC", "6D92078A-8246-4BA4-AE5B-76104861E7DC"),
        ("00000000-0000-0000-0000-000000000000", None),
        ("0", None),
        (0, None),
        ("", None),
        (None, None),
    ],
)
def test_advertising_id(value: Any, expected: str | None) -> None:
    """The all-zero id of limited ad tracking is no id."""
    assert expected == rule("advertising_id")(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Mozilla/5.0 (X11)", "Mozilla/5.0 (X11)"),
        ("x" * 400, "x" * 400),
        ("Bot (admin@example.com)", "Bot (redacted)"),
        ("?a%25%34%30example.com", None),
        (None, None),
    ],
)
def test_readable(value: Any, expected: str | None) -> None:
    """Free text keeps its length, loses addresses, and is left out, not empty, when nothing remains."""
    assert expected == rule("readable")(value)
