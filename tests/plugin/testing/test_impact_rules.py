"""The documented rules of impact.com, each with a request that keeps it and one that breaks it."""

import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impact_plugin.testing.impact_forms import Form, parse_body
from impact_plugin.testing.impact_rules import RuleViolation, check_conversion, check_page_load
from impact_plugin.testing.impact_values import find_clear_email
from impact_transformers.currencies import CURRENCIES

SHA1 = hashlib.sha1(b"buyer@example.com", usedforsecurity=False).hexdigest()
SHA256 = hashlib.sha256(b"buyer@example.com").hexdigest()
FORM = "application/x-www-form-urlencoded"
CONVERSION = {
    "CampaignId": "1000",
    "EventTypeId": "2000",
    "EventDate": "2026-03-01T12:00:00+00:00",
    "OrderId": "order-1",
    "CustomProfileId": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "CustomerEmail": SHA1,
    "CurrencyCode": "EUR",
}
ITEM = {"ItemSku1": "sku", "ItemCategory1": "shoes", "ItemQuantity1": "2", "ItemPrice1": "19.90"}
PAGE_LOAD = {
    "CampaignId": "1000",
    "EventDate": "2026-03-01T12:00:00Z",
    "CustomProfileId": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "PageUrl": "https://shop.example.com/?im_ref=abc",
}


def refused(fields: dict[str, str]) -> set[str]:
    """Name the parameters a conversion is refused for."""
    return {problem.field for problem in check_conversion(fields).errors}


def refused_page_load(fields: dict[str, str], *, strict: bool = True) -> set[str]:
    """Name the parameters a page load is refused for."""
    return {problem.field for problem in check_page_load(fields, strict=strict).errors}


def without(fields: dict[str, str], name: str) -> dict[str, str]:
    """Leave one parameter out."""
    return {key: value for key, value in fields.items() if key != name}


def test_complete_conversion_has_no_problems() -> None:
    """A conversion with everything it needs passes, with items and with custom parameters."""
    custom = {"Text50": "x", "Numeric10": "-1.5", "Money3": "2", "Date10": "2026-03-01", "ItemText1_50": "y"}
    assert set() == refused({**CONVERSION, **ITEM, **custom})


@pytest.mark.parametrize("name", ["CampaignId", "EventDate", "OrderId"])
def test_required_parameter_is_missing(name: str) -> None:
    """Each of the three required parameters is asked for by name."""
    assert {name} == refused(without(CONVERSION, name))


def test_alias_stands_for_the_order_id() -> None:
    """``Oid`` is taken for ``OrderId``, but the two together are not."""
    assert set() == refused({**without(CONVERSION, "OrderId"), "Oid": "order-1"})
    assert {"Oid"} == refused({**CONVERSION, "Oid": "order-1"})


@pytest.mark.parametrize("name", ["EventTypeId", "ActionTrackerId", "EventTypeCode"])
def test_any_single_event_type_is_enough(name: str) -> None:
    """The event type is named in one of three ways."""
    assert set() == refused({**without(CONVERSION, "EventTypeId"), name: "77"})


def test_event_type_is_named_exactly_once() -> None:
    """No event type and two event types are refused alike."""
    assert {"EventTypeId"} == refused(without(CONVERSION, "EventTypeId"))
    assert {"EventTypeCode"} == refused({**CONVERSION, "EventTypeCode": "sale"})


def test_conversion_without_attribution_key_is_refused() -> None:
    """A conversion that nothing ties to a visitor or partner cannot be attributed."""
    assert {"ClickId"} == refused(without(CONVERSION, "CustomProfileId"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CampaignId", "1e+06"),
        ("CampaignId", "12345678901"),
        ("CampaignId", "1.0"),
        ("CampaignId", "１２"),  # full-width digits
        ("Amount", "1e+06"),
        ("Amount", "<nil>"),
        ("Amount", "map[a:1]"),
        ("Amount", "NaN"),
        ("Amount", ".5"),
        ("Amount", "1,000.00"),
        ("Amount", "123456789012345.00"),
        ("Amount", "1.234"),
        ("Text1", "<nil>"),
        ("Text1", "map[a:1]"),
        ("Text1", "x" * 65),
        ("Text1", ""),
        ("Text1", "  "),
        ("Text51", "x"),
        ("Text0", "x"),
        ("Numeric11", "1"),
        ("Money4", "1"),
        ("Date11", "2026-03-01"),
        ("Date1", "yesterday"),
        ("String1", "x"),
        ("OrderId", "x" * 65),
        ("CustomProfileId", "x" * 71),
        ("CustomerId", "x" * 256),
        ("EventDate", "2026-03-01T12:00:00"),
        ("EventDate", "2026-03-01"),
        ("EventDate", "2026-03-01T12:00:00 00:00"),
        ("EventDate", "1772366400"),
        ("CurrencyCode", "eur"),
        ("CurrencyCode", "XXX"),
        ("CustomerEmail", "buyer@example.com"),
        ("CustomerEmail", "g" * 40),
        ("CustomerEmail", SHA1[:-1]),
        ("TrackingConsent", "True"),
        ("UniqueUrl", "shop.example.com"),
    ],
)
def test_wrong_value_is_refused_by_name(name: str, value: str) -> None:
    """Values outside the documented type, size or family are refused, and the parameter is named."""
    assert {name} == refused({**CONVERSION, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EventDate", "NOW"),
        ("EventDate", "2026-03-01T12:00:00.123-08:00"),
        ("CustomerEmail", SHA256),
        ("CustomerEmail", SHA1.upper()),
        ("Amount", "-12345678.90"),
        ("OrderTax", "12345678901234.00"),
        ("TrackingConsent", "false"),
        ("UserAgent", "Mozilla/5.0 " * 50),
        ("DeviceOs", "iOS"),
    ],
)
def test_documented_value_is_accepted(name: str, value: str) -> None:
    """The documented spellings and greatest sizes pass."""
    assert set() == refused({**CONVERSION, name: value})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"Amount": "10"}, "Amount"),
        ({"OrderSubTotalPostDiscount": "10"}, "OrderSubTotalPostDiscount"),
        ({"ItemSubTotal1": "39.80"}, "ItemPrice1"),
        ({"ItemSku3": "b", "ItemCategory3": "c", "ItemQuantity3": "1", "ItemPrice3": "1"}, "ItemSku2"),
        ({"ItemSku0": "b", "ItemCategory0": "c", "ItemQuantity0": "1", "ItemPrice0": "1"}, "ItemSku2"),
        ({"ItemSku01": "b"}, "ItemSku01"),
        ({"ItemText1_51": "b"}, "ItemText1_51"),
        ({"ItemText1": "b"}, "ItemText1"),
        ({"ItemSku1_1": "b"}, "ItemSku1_1"),
        ({"ItemColour1": "red"}, "ItemColour1"),
        ({"ItemQuantity1": "1.5"}, "ItemQuantity1"),
    ],
)
def test_wrong_items_are_refused(changes: dict[str, str], field: str) -> None:
    """Lines are numbered from 1 without gaps, priced once, and never beside an order's own amount."""
    assert {field} == refused({**CONVERSION, **ITEM, **changes})


@pytest.mark.parametrize("name", ITEM)
def test_item_without_a_required_part_is_refused(name: str) -> None:
    """Every line has an SKU, a category, a quantity and a price."""
    assert {name} == refused({**CONVERSION, **without(ITEM, name)})


def test_discount_does_not_stand_beside_the_discounted_total() -> None:
    """A total after discount together with the discount would be reduced twice."""
    assert {"OrderDiscount"} == refused({**CONVERSION, "OrderSubTotalPostDiscount": "9", "OrderDiscount": "1"})


def test_messages_never_repeat_the_value() -> None:
    """A refused value may be personal, so that no message contains it."""
    report = check_conversion({**CONVERSION, "CustomerEmail": "buyer@example.com"})
    assert (RuleViolation("CustomerEmail", "ERROR", "holds an e-mail address in clear"),) == report.errors


def test_complete_page_load_has_no_problems() -> None:
    """A page load with everything it needs passes without a warning."""
    report = check_page_load(PAGE_LOAD)
    assert (report.errors, report.warnings) == ((), ())


@pytest.mark.parametrize("name", ["GoogAId", "AndroidId", "AppleIfa", "AppleIfv", "ClickId", "CustomerId"])
def test_other_identifier_replaces_the_profile_id(name: str) -> None:
    """A page load may leave the profile id out when it carries one of the other identifiers."""
    assert set() == refused_page_load({**without(PAGE_LOAD, "CustomProfileId"), name: "abc"})


@pytest.mark.parametrize("name", ["CampaignId", "EventDate", "CustomProfileId"])
def test_page_load_needs_program_date_and_visitor(name: str) -> None:
    """Each required parameter of a page load is asked for by name."""
    assert {name} == refused_page_load(without(PAGE_LOAD, name))


def test_page_load_without_url_is_only_warned() -> None:
    """An app that was opened directly has no address; the page load still counts."""
    report = check_page_load(without(PAGE_LOAD, "PageUrl"))
    assert (report.errors, [warning.field for warning in report.warnings]) == ((), ["PageUrl"])


def test_page_load_warns_of_what_is_not_documented() -> None:
    """A SHA-256 and a parameter of an earlier version pass with a warning."""
    report = check_page_load({**PAGE_LOAD, "CustomerEmail": SHA256, "DeviceOs": "iOS"})
    assert (report.errors, [warning.field for warning in report.warnings]) == ((), ["CustomerEmail", "DeviceOs"])


def test_clear_email_on_page_load_depends_on_strictness() -> None:
    """impact.com takes an e-mail address in clear there; the strict default does not, nor does anyone elsewhere."""
    fields = {**PAGE_LOAD, "CustomerEmail": "buyer@example.com"}
    assert {"CustomerEmail"} == refused_page_load(fields)
    assert set() == refused_page_load(fields, strict=False)
    assert {"CustomerId"} == refused_page_load({**PAGE_LOAD, "CustomerId": "buyer@example.com"}, strict=False)


def test_conversion_parameters_are_unknown_to_page_loads() -> None:
    """The two endpoints do not share their parameters."""
    assert {"OrderId", "ItemSku1"} == refused_page_load({**PAGE_LOAD, "OrderId": "1", "ItemSku1": "a"})


@pytest.mark.parametrize(
    "value",
    [
        "buyer@example.com",
        "https://shop.example.com/?email=a%40example.com",
        "https://shop.example.com/?next=%2Fx%3Femail%3Da%2540example.com",
        "https://shop.example.com/?email=first.last%2Btag@mail.example.com&x=1",
        "Bücher <jörg@bücher.example.com>",
    ],
)
def test_clear_email_is_found(value: str) -> None:
    """An address is found alone, in a sentence and percent-encoded inside a URL."""
    assert find_clear_email(value)


@pytest.mark.parametrize(
    "value",
    ["", "@", "a@", "@example.com", "https://example.com/@someone.else", "user at example.com", "10% off", "pkg@1.2.3"],
)
def test_text_without_email_is_left_alone(value: str) -> None:
    """Handles, version numbers and percent signs are no addresses."""
    assert not find_clear_email(value)


@given(st.text(), st.text(alphabet=string.ascii_lowercase, min_size=1), st.text())
def test_email_is_found_whatever_surrounds_it(before: str, local: str, after: str) -> None:
    """Surroundings set off by a blank never hide an address."""
    assert find_clear_email(f"{before} {local}@example.com {after}")


@given(st.dictionaries(st.text(), st.text()))
def test_checks_never_raise(fields: dict[str, str]) -> None:
    """Any decoded parameters get a verdict."""
    assert check_conversion(fields).errors
    assert check_page_load(fields).errors


@given(st.one_of(st.none(), st.sampled_from([FORM, "application/json"])), st.binary())
def test_any_body_is_parsed_or_refused(content_type: str | None, body: bytes) -> None:
    """No sequence of bytes raises."""
    assert isinstance(parse_body(content_type, body), Form)


@pytest.mark.parametrize(
    ("content_type", "body", "field"),
    [
        (None, b"a=1", "Content-Type"),
        ("text/plain", b"a=1", "Content-Type"),
        (f"{FORM}; charset=latin-1", b"a=1", "Content-Type"),
        (FORM, b"\xff", "body"),
        (FORM, b"a=%ff", "body"),
        (FORM, b"a", "body"),
        (FORM, b"a=1&a=2", "a"),
        ("application/json", b"{", "body"),
        ("application/json", b"[]", "body"),
        ("application/json", b'{"a":{"b":1}}', "a"),
    ],
)
def test_unreadable_body_is_a_problem(content_type: str | None, body: bytes, field: str) -> None:
    """A body that is not one flat set of UTF-8 parameters is refused with its reason."""
    assert [field] == [problem.field for problem in parse_body(content_type, body).problems]


def test_form_is_decoded() -> None:
    """Percent signs and plus signs are decoded, empty values kept."""
    assert Form({"a": "ü b", "c": ""}) == parse_body(f"{FORM}; charset=UTF-8", b"a=%C3%BC+b&c=")


def test_json_is_flattened_to_text() -> None:
    """Numbers become plain decimals, booleans lower case, null an empty value."""
    body = b'{"a":1,"b":10000000000000000.0,"c":true,"d":null,"e":"x","f":1.5}'
    expected = {"a": "1", "b": "10000000000000000", "c": "true", "d": "", "e": "x", "f": "1.5"}
    assert Form(expected) == parse_body("application/json", body)


def test_currencies_are_well_formed() -> None:
    """Each code is three capital letters; withdrawn ones are among them, those of no currency are not."""
    assert set() == {code for code in CURRENCIES if len(code) != 3 or not code.isascii() or not code.isupper()}
    assert {"EUR", "JPY", "KWD", "BGN", "HRK"} == {"EUR", "JPY", "KWD", "BGN", "HRK", "XXX", "XTS"} & CURRENCIES
