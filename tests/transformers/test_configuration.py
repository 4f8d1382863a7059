"""What operators and control planes save, in every form they save it, and what is said about mistakes."""

from typing import Any, Final

import pytest

from impact_plugin.config.manifest import load_manifest
from impact_transformers import (
    ConfigurationError,
    Destination,
    DestinationConfig,
    DynamicDestination,
    Reason,
    Reject,
    Send,
    compile_destination,
    decode_event,
    decode_object,
    transform,
)
from impact_transformers.configuration import EventType, Mapped, unknown_keys

SCHEMA: Final = load_manifest().configuration
BASE: Final = {"accountSID": "IRexample", "apiKey": "very-secret-token", "campaignId": "1000"}
ORDER: Final = (
    b'{"type":"track","event":"Order Completed","anonymousId":"a","properties":{"order_id":"o-1","path":"x"}}'
)


def compiled(**settings: Any) -> Destination:
    """Compile the smallest configuration with these settings added."""
    destination = compile_destination({**BASE, **settings}, SCHEMA)
    assert isinstance(destination, Destination)
    return destination


def parsed(**settings: Any) -> DestinationConfig:
    """Return what the settings were understood as."""
    return compiled(**settings).config


def problems(config: dict[str, Any], variables: dict[str, str] | None = None) -> dict[str, str]:
    """Return the mistakes found, by path."""
    with pytest.raises(ConfigurationError) as caught:
        compile_destination(config, SCHEMA, variables)
    return {problem.path: problem.message for problem in caught.value.problems}


def mistakes(**settings: Any) -> str:
    """Return the mistakes found in these settings, in words."""
    with pytest.raises(ConfigurationError) as caught:
        compiled(**settings)
    return str(caught.value)


def order_form(event: bytes = ORDER, **settings: Any) -> dict[str, str]:
    """Send an order through the destination and return its form."""
    outcome = transform(decode_event(event), compiled(**settings), decode_object(event))
    assert isinstance(outcome, Send)
    return outcome.request.form


def test_three_settings_are_enough() -> None:
    """Account SID, Auth Token and Campaign ID are required; all else has a default that works."""
    config = parsed()

    assert ("IRexample", "1000", "very-secret-token") == (
        config.account_sid,
        config.campaign_id,
        config.api_key.reveal(),
    )
    assert (True, True, True) == (config.enable_page_events, config.enable_screen_events, config.enable_identify_events)
    assert ("page_load", "drop", "off", "Uncategorized") == (
        config.unmapped_track,
        config.email_as_customer_id,
        config.consent_gate,
        config.default_category,
    )
    assert ((), (), (), (), (), {}) == (
        config.action_event_names,
        config.install_event_names,
        config.event_types,
        config.rudder_to_impact_property,
        config.products_mapping,
        config.parameter_sources,
    )


@pytest.mark.parametrize(
    "names",
    [
        [{"eventName": "A"}, {"eventName": "B"}],
        ["A", "B"],
        [" A ", "B", "A"],
        [{"eventName": "A"}, "B", {"eventName": ""}, {"eventName": None}, {}, None, ""],
        {"web": ["A", "B"]},
        {"web": ["A", "B"], "cloud": ["A", "B"]},
    ],
)
def test_names(names: Any) -> None:
    """Event names come as rows of RudderStack's form, as a list, or once a source type; blank rows do not count."""
    assert ("A", "B") == parsed(actionEventNames=names).action_event_names


@pytest.mark.parametrize("names", ["A", ["A"], [{"eventName": "A"}], {"web": "A"}])
def test_a_single_name(names: Any) -> None:
    """One name needs no list."""
    assert ("A",) == parsed(installEventNames=names).install_event_names


@pytest.mark.parametrize("names", [None, "", [], [{"eventName": ""}], [""]])
def test_no_names(names: Any) -> None:
    """An empty form is no names at all."""
    assert () == parsed(actionEventNames=names).action_event_names


@pytest.mark.parametrize("value", [True, "true", " TRUE ", 1, "1", {"web": True, "cloud": True}, None, ""])
def test_booleans_that_are_true(value: Any) -> None:
    """A switch saved as text, number or once a source type is read; a missing flag means enabled."""
    assert parsed(enablePageEvents=value).enable_page_events is True


@pytest.mark.parametrize(
    "value", [False, "false", "False", 0, "0", {"web": False}, {"ios": "false", "android": "false"}]
)
def test_booleans_that_are_false(value: Any) -> None:
    """Every spelling of false switches off."""
    assert parsed(enablePageEvents=value).enable_page_events is False


@pytest.mark.parametrize("value", ["4711", 4711, 4711.0, " 4711 ", {"web": 4711}, {"web": "4711", "cloud": "4711"}])
def test_numbers_as_text_and_text_as_numbers(value: Any) -> None:
    """An id saved as a number, which Go makes a float, stays the same id."""
    config = parsed(eventTypeId=value, campaignId=value, impactAppId=value)

    assert ("4711", "4711", "4711") == (config.event_type_id, config.campaign_id, config.impact_app_id)


def test_aliases() -> None:
    """Segment's names for the token and the app id are understood."""
    config = compile_destination({"accountSID": "A", "authToken": "t", "campaignId": "1", "propertyId": "7"}, SCHEMA)

    assert isinstance(config, Destination)
    assert ("t", "7") == (config.config.api_key.reveal(), config.config.impact_app_id)


def test_an_alias_gives_way_to_the_key_itself() -> None:
    """Where both are filled in, the key of the manifest wins; an empty key does not."""
    assert "very-secret-token" == parsed(authToken="other").api_key.reveal()
    assert "other" == parsed(apiKey="", authToken="other").api_key.reveal()


@pytest.mark.parametrize(
    "rows",
    [
        [{"from": "properties.a", "to": "Text1"}],
        [{"from": " properties.a ", "to": " Text1 "}, {"from": "", "to": ""}, {}],
        {"properties.a": "Text1"},
        {"web": [{"from": "properties.a", "to": "Text1"}]},
    ],
)
def test_mapping(rows: Any) -> None:
    """A mapping comes as rows or as an object; empty rows do not count."""
    assert (Mapped("properties.a", "Text1"),) == parsed(rudderToImpactProperty=rows).rudder_to_impact_property


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        ({"Signed Up": "4711"}, EventType("Signed Up", "action", id="4711")),
        ({"Signed Up": 4711}, EventType("Signed Up", "action", id="4711")),
        ({" Signed Up ": {"id": " 4711 ", "kind": "lead"}}, EventType("Signed Up", "lead", id="4711")),
        ({"Signed Up": {"code": "SIGNUP", "kind": "install"}}, EventType("Signed Up", "install", code="SIGNUP")),
        ({"Signed Up": {"kind": "page_load"}}, EventType("Signed Up", "page_load")),
        ({"Signed Up": {"id": "", "code": ""}}, EventType("Signed Up", "action")),
        ([{"eventName": "Signed Up", "code": "SIGNUP"}], EventType("Signed Up", "action", code="SIGNUP")),
    ],
)
def test_event_types(saved: Any, expected: EventType) -> None:
    """An event type is an id alone, or an object of id or code and kind, by name or in rows."""
    assert (expected,) == parsed(eventTypes=saved).event_types


@pytest.mark.parametrize("paths", [["properties.cart.id"], "properties.cart.id"])
def test_parameter_sources(paths: Any) -> None:
    """Paths come as a list, or alone."""
    assert {"OrderId": ("properties.cart.id",)} == parsed(parameterSources={"OrderId": paths}).parameter_sources


MISTAKES: Final[list[tuple[dict[str, Any], str, str]]] = [
    ({"accountSID": ""}, "accountSID", "is required"),
    ({"accountSID": "has spaces"}, "accountSID", "pattern"),
    ({"accountSID": ["x"]}, "accountSID", "must be text, not a list"),
    ({"apiKey": None}, "apiKey", "is required"),
    ({"apiKey": True}, "apiKey", "must be text"),
    ({"campaignId": "spring"}, "campaignId", "pattern"),
    ({"campaignId": 1.5}, "campaignId", "whole number"),
    ({"campaignId": "12345678901"}, "campaignId", "pattern"),
    ({"impactAppId": "com.example.shop"}, "impactAppId", "pattern"),
    ({"eventTypeId": "SALE"}, "eventTypeId", "pattern"),
    ({"enablePageEvents": "perhaps"}, "enablePageEvents", "must be true or false"),
    ({"enablePageEvents": {"a": True}}, "enablePageEvents", "must be true or false, not an object"),
    ({"actionEventNames": 7}, "actionEventNames", "must be a list"),
    ({"actionEventNames": {"name": "A"}}, "actionEventNames", "must be a list"),
    ({"actionEventNames": ["A", 7]}, "actionEventNames[1]", "must be text, not a number"),
    ({"eventTypes": "Signed Up"}, "eventTypes", "must be an object"),
    ({"eventTypes": {"A": "SIGNUP"}}, "eventTypes.A", "whole number of at most 10 digits"),
    ({"eventTypes": {"A": {"id": "1", "code": "C"}}}, "eventTypes.A", "exactly one"),
    ({"eventTypes": {"A": {"kind": "sale"}}}, "eventTypes.A", "kind must be one of action, lead, install, page_load"),
    ({"eventTypes": {"A": {"kind": "reversal"}}}, "eventTypes.A", "not available yet"),
    ({"eventTypes": {"A": {"kind": "modification"}}}, "eventTypes.A", "not available yet"),
    ({"eventTypes": {"A": {"code": "C" * 65}}}, "eventTypes.A", "64 characters"),
    ({"eventTypes": {"A": {"typ": "C"}}}, "eventTypes.A", "does not know typ"),
    ({"unmappedTrack": "drop"}, "unmappedTrack", "must be one of page_load, skip"),
    ({"rudderToImpactProperty": "x"}, "rudderToImpactProperty", "must be a list"),
    ({"rudderToImpactProperty": ["x"]}, "rudderToImpactProperty", "must be a list"),
    ({"rudderToImpactProperty": [{"from": "a.b"}]}, "rudderToImpactProperty[0]", "needs both from and to"),
    ({"productsMapping": [{"to": "ItemSku"}]}, "productsMapping[0]", "needs both from and to"),
    ({"productsMapping": [{"from": "a[b]", "to": "ItemSku"}]}, "productsMapping", "is not a path"),
    ({"parameterSources": ["OrderId"]}, "parameterSources", "must be an object"),
    ({"parameterSources": {"OrderId": 7}}, "parameterSources.OrderId", "must be a list of paths"),
    ({"parameterSources": {"OrderId": ["a["]}}, "parameterSources.OrderId", "is not a path"),
    ({"defaultCurrency": "EURO"}, "defaultCurrency", "pattern"),
    ({"defaultCategory": "c" * 256}, "defaultCategory", "pattern"),
    ({"emailAsCustomerId": "send"}, "emailAsCustomerId", "must be one of drop, hash"),
    ({"consentPaths": [7]}, "consentPaths[0]", "must be text"),
    ({"consentPaths": ["a["]}, "consentPaths", "is not a path"),
    ({"consentPaths": ["@click_id"]}, "consentPaths", "'@click_id' is not a path of the event"),
    ({"consentPaths": ["destination.campaignId"]}, "consentPaths", "is not a path of the event"),
    ({"consentGate": "on"}, "consentGate", "must be one of off, denied, required"),
    ({"reversalEventNames": ["Order Refunded"]}, "reversalEventNames", "remove this key"),
    ({"modificationEventNames": ["Order Updated"]}, "modificationEventNames", "remove this key"),
    ({"refundEventNames": ["Order Refunded"]}, "refundEventNames", "remove this key"),
]


@pytest.mark.parametrize(("settings", "path", "message"), MISTAKES)
def test_mistake(settings: dict[str, Any], path: str, message: str) -> None:
    """Each mistake is told with its path and what to do about it."""
    found = problems({**BASE, **settings})

    assert [path] == list(found)
    assert message in found[path]


def test_every_mistake_at_once() -> None:
    """The operator sees all mistakes, not the first of them, and each stands in the message."""
    wrong: dict[str, Any] = {
        "accountSID": "has spaces",
        "campaignId": "spring",
        "enablePageEvents": "perhaps",
        "actionEventNames": 7,
        "eventTypes": {"A": "SIGNUP", "B": {"kind": "sale"}},
        "rudderToImpactProperty": [{"from": "a.b"}, {"to": "Text1"}],
        "parameterSources": {"OrderId": ["a["]},
        "consentGate": "on",
        "refundEventNames": ["Order Refunded"],
    }
    expected = {
        "refundEventNames",
        "apiKey",
        "accountSID",
        "campaignId",
        "enablePageEvents",
        "actionEventNames",
        "eventTypes.A",
        "eventTypes.B",
        "rudderToImpactProperty[0]",
        "rudderToImpactProperty[1]",
        "parameterSources.OrderId",
        "consentGate",
    }
    with pytest.raises(ConfigurationError) as caught:
        compile_destination(wrong, SCHEMA)

    assert expected == {problem.path for problem in caught.value.problems}
    assert [] == [path for path in expected if path not in str(caught.value)]


def test_all_sources_of_one_parameter_are_checked_with_the_others() -> None:
    """Two parameters with wrong paths are two mistakes."""
    found = problems({**BASE, "parameterSources": {"OrderId": ["a["], "ClickId": ["b["]}})

    assert {"parameterSources.OrderId", "parameterSources.ClickId"} == set(found)


@pytest.mark.parametrize("key", ["productsMapping", "rudderToImpactProperty"])
def test_all_rows_of_a_mapping_are_checked(key: str) -> None:
    """A half-filled row does not hide a wrong path in another."""
    found = problems({**BASE, key: [{"from": "a"}, {"from": "a[b]", "to": "Text1"}]})

    assert "needs both from and to" in str(found)
    assert "is not a path" in str(found)


def test_different_values_a_source_type() -> None:
    """One destination has one value; the mistake names the key, whose value may differ for good reason elsewhere."""
    found = problems({**BASE, "eventTypeId": {"web": "1", "cloud": "2"}})

    assert [path for path in found if path.startswith("eventTypeId")]


def test_an_event_type_row_without_a_name_is_a_mistake() -> None:
    """A row that would never match anything is told, not dropped."""
    found = problems({**BASE, "eventTypes": [{"code": "SIGNUP"}]})

    assert [path for path in found if path.startswith("eventTypes")]


def test_an_event_type_row_that_is_no_object_is_a_mistake() -> None:
    """A bare name says neither id nor code nor kind; dropping it would turn a conversion into a page load."""
    found = problems({**BASE, "eventTypes": ["Signed Up"]})

    assert [path for path in found if path.startswith("eventTypes")]


def test_a_default_currency_that_does_not_exist_is_a_mistake() -> None:
    """Three letters are not yet a currency: told once here, not with every order."""
    found = problems({**BASE, "defaultCurrency": "XYZ"})

    assert ["defaultCurrency"] == list(found)


@pytest.mark.parametrize("path", ["@no_such_place", "@click_id(event) or dir", "@", "@click_id extra"])
def test_a_named_source_that_does_not_exist_is_a_mistake(path: str) -> None:
    """Only the named sources of the tables exist; a name is never taken for code."""
    found = problems({**BASE, "parameterSources": {"OrderId": [path]}})

    assert ["parameterSources.OrderId"] == list(found)


@pytest.mark.parametrize(
    "settings",
    [
        {"parameterSources": {"OrderId": ["@click_id(event) or print() or named_click_id"]}},
        {"rudderToImpactProperty": [{"from": "@click_id(event) or dir() or named_click_id", "to": "Text1"}]},
        {"productsMapping": [{"from": "@click_id(event) or named_click_id", "to": "ItemText{i}_1"}]},
    ],
)
def test_configuration_is_never_run_as_code(settings: dict[str, Any]) -> None:
    """Whoever may write a destination's configuration must not run Python in the service."""
    with pytest.raises(ConfigurationError):
        compile_destination({**BASE, **settings}, SCHEMA)


@pytest.mark.parametrize("parameter", ["ItemText{i}_{i}", "{i}{i}", "Item{x}Text"])
def test_a_parameter_that_cannot_be_is_a_mistake(parameter: str) -> None:
    """A template of a name has the number once; a mistake is told like any other."""
    found = problems({**BASE, "productsMapping": [{"from": "a", "to": parameter}]})

    assert [path for path in found if path.startswith("productsMapping")]


def test_a_fixed_value_that_does_not_fit_is_a_mistake() -> None:
    """A destination's own value under a parameter that refuses it is a mistake of the configuration."""
    found = problems(
        {**BASE, "defaultCurrency": "XYZ", "parameterSources": {"CurrencyCode": ["destination.defaultCurrency"]}}
    )

    assert found


def test_unknown_keys_are_told_but_no_mistake() -> None:
    """RudderStack adds keys of its own (connectionMode, consentManagement)."""
    config = {**BASE, "connectionMode": {"web": "cloud"}, "authToken": "t", "zzz": 1}

    assert ["connectionMode", "zzz"] == unknown_keys(config, SCHEMA)
    assert parsed(connectionMode={"web": "cloud"}, zzz=1)


def test_the_configuration_is_left_as_it_was() -> None:
    """Compiling changes nothing in the caller's object."""
    config = {**BASE, "actionEventNames": [{"eventName": " A "}], "apiKey": "env.IMPACT_VAR_TOKEN"}
    compile_destination(config, SCHEMA, {"IMPACT_VAR_TOKEN": "t"})

    assert {**BASE, "actionEventNames": [{"eventName": " A "}], "apiKey": "env.IMPACT_VAR_TOKEN"} == config


def test_variables() -> None:
    """``env.IMPACT_VAR_X`` is the service's variable of that name, anywhere in the tree."""
    config = {**BASE, "apiKey": "env.IMPACT_VAR_TOKEN", "eventTypes": {"A": {"code": "env.IMPACT_VAR_CODE"}}}
    destination = compile_destination(config, SCHEMA, {"IMPACT_VAR_TOKEN": "from-env", "IMPACT_VAR_CODE": "CODE"})

    assert isinstance(destination, Destination)
    assert "from-env" == destination.config.api_key.reveal()
    assert "CODE" == destination.config.event_types[0].code


@pytest.mark.parametrize("name", ["env.PATH", "env.AWS_SECRET_ACCESS_KEY", "env.impact_var_x", "env."])
def test_variables_that_are_not_ours(name: str) -> None:
    """No other variable of the process can be read, even when it is set; the message says which names can."""
    found = problems({**BASE, "accountSID": name}, {name.removeprefix("env."): "leaked-value"})

    assert "IMPACT_VAR_" in str(found)
    assert "leaked-value" not in str(found)


def test_variables_that_are_not_set() -> None:
    """A missing variable is a mistake that names it, and all of them are told at once."""
    found = problems({**BASE, "apiKey": "env.IMPACT_VAR_A", "accountSID": "env.IMPACT_VAR_B"}, {})

    assert 2 == len(found)
    assert "IMPACT_VAR_A" in str(found)
    assert "IMPACT_VAR_B" in str(found)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('{{ event.properties.campaign || "1000" }}', "1000"),
        ("{{ event.properties.campaign || '1000' }}", "1000"),
        ("{{event.properties.campaign||1000}}", "1000"),
        ('{{ message.properties.n || "1000" }}', "7"),
        ('{{ properties.n || "1000" }}', "7"),
        ('{{ event.properties.list[0] || "1000" }}', "8"),
        ("{{ event.properties.n }}", "7"),
        (' {{ event.properties.n || "1000" }} ', "7"),
    ],
)
def test_template(template: str, expected: str) -> None:
    """A value may come from each event, with or without a default, in the spellings of the router."""
    raw = b'{"type":"page","anonymousId":"a","properties":{"n":7,"list":[8]}}'
    destination = compile_destination({**BASE, "campaignId": template}, SCHEMA)
    outcome = transform(decode_event(raw), destination, decode_object(raw))

    assert destination.reads_message
    assert isinstance(destination, DynamicDestination)
    assert isinstance(outcome, Send)
    assert expected == outcome.request.form["CampaignId"]


def test_a_template_that_gives_nothing_is_a_configuration_reject() -> None:
    """A required value that neither the event nor a default gives is the configuration's fault."""
    raw = b'{"type":"page","anonymousId":"a"}'
    destination = compile_destination({**BASE, "campaignId": "{{ event.properties.campaign }}"}, SCHEMA)
    outcome = transform(decode_event(raw), destination, decode_object(raw))

    assert isinstance(outcome, Reject)
    assert Reason.CONFIGURATION == outcome.reason
    assert "campaignId" in outcome.detail


def test_a_template_with_a_wrong_path_is_a_mistake() -> None:
    """A path that cannot be read is told when the configuration is compiled, or at the latest as a reject."""
    raw = b'{"type":"page","anonymousId":"a"}'
    try:
        destination = compile_destination({**BASE, "campaignId": '{{ event.a[b] || "1" }}'}, SCHEMA)
    except ConfigurationError as error:
        assert "a[b]" in str(error)  # noqa: PT017 - one of two right answers
        return
    outcome = transform(decode_event(raw), destination, decode_object(raw))

    assert isinstance(outcome, Reject)
    assert Reason.CONFIGURATION == outcome.reason


def test_a_visitor_cannot_name_a_variable_through_a_template() -> None:
    """What an event puts into a template is a value: it is not looked up in the service's environment."""
    raw = b'{"type":"page","anonymousId":"a","properties":{"c":"env.IMPACT_VAR_TOKEN"}}'
    destination = compile_destination(
        {**BASE, "defaultCategory": '{{ event.properties.c || "x" }}'}, SCHEMA, {"IMPACT_VAR_TOKEN": "from-env"}
    )

    assert "env.IMPACT_VAR_TOKEN" == destination.for_event(decode_object(raw)).config.default_category


def test_a_templates_token_is_not_shown() -> None:
    """A token that comes from the event does not stand in the reject's detail."""
    raw = b'{"type":"page","anonymousId":"a","properties":{"t":"very-secret-token","c":"spring"}}'
    config = {**BASE, "apiKey": "{{ event.properties.t }}", "campaignId": "{{ event.properties.c }}"}
    outcome = transform(decode_event(raw), compile_destination(config, SCHEMA), decode_object(raw))

    assert isinstance(outcome, Reject)
    assert "very-secret-token" not in outcome.detail


def test_a_template_is_compiled_once_a_value() -> None:
    """Two events with the same values share one compiled destination; the event keeps its property."""
    destination = compile_destination({**BASE, "campaignId": "{{ event.properties.c }}"}, SCHEMA)
    message = {"properties": {"c": "7"}}

    assert destination.for_event(message) is destination.for_event({"properties": {"c": 7}, "type": "page"})
    assert destination.for_event(message) is not destination.for_event({"properties": {"c": "8"}})
    assert {"properties": {"c": "7"}} == message


@pytest.mark.parametrize(
    ("changes", "program"),
    [
        ({"eventTypeId": "{{ event.properties.t }}"}, "IRexample\x1f1000"),
        ({"campaignId": 1000, "eventTypeId": "{{ event.properties.t }}"}, "IRexample\x1f1000"),
        ({"campaignId": '{{ event.properties.c || "23224" }}'}, None),
        ({"accountSID": "{{ event.properties.a }}"}, None),
        ({}, "IRexample\x1f1000"),
    ],
)
def test_a_destination_names_its_program_where_no_event_decides(changes: dict[str, Any], program: str | None) -> None:
    """Deletion looks a person up at the program; other values may come from the event."""
    assert program == compile_destination({**BASE, **changes}, SCHEMA).program


def test_a_static_destination_is_the_same_for_every_event() -> None:
    """Without templates there is nothing to resolve."""
    destination = compiled()

    assert destination is destination.for_event(None)
    assert not destination.reads_message


@pytest.mark.parametrize("settings", [{"consentGate": "denied"}, {"consentPaths": ["context.consent.ads"]}])
def test_consent_needs_the_generic_event(settings: dict[str, Any]) -> None:
    """Destinations say when they need the event decoded without types."""
    assert compiled(**settings).reads_message


@pytest.mark.parametrize(
    ("identifier", "settings"),
    [
        ("EventTypeCode", {"eventTypeId": "5"}),
        ("EventTypeId", {}),
        ("ActionTrackerId", {}),
        ("ActionTrackerId", {"eventTypeId": "5"}),
    ],
)
def test_exactly_one_event_identifier_whatever_is_mapped(identifier: str, settings: dict[str, Any]) -> None:
    """A custom row for an event identifier never makes two of them in one conversion, as impact.com takes one."""
    rows = [{"from": "properties.order_id", "to": identifier}]
    try:
        form = order_form(rudderToImpactProperty=rows, **settings)
    except ConfigurationError:
        return

    assert 1 == len({"EventTypeId", "EventTypeCode", "ActionTrackerId"} & set(form))


def test_of_two_mapped_event_identifiers_the_one_by_id_is_sent() -> None:
    """impact.com takes one identifier: an id says which event type is meant more surely than a code does."""
    rows = [{"from": "properties.path", "to": "EventTypeCode"}, {"from": "properties.number", "to": "EventTypeId"}]
    event = ORDER.replace(b'"path":"x"', b'"path":"x","number":77')
    form = order_form(event, rudderToImpactProperty=rows)

    assert "77" == form["EventTypeId"]
    assert "EventTypeCode" not in form


@pytest.mark.parametrize("pair", [("Oid", "OrderId"), ("Currency", "CurrencyCode")])
def test_never_a_parameter_beside_its_alias(pair: tuple[str, str]) -> None:
    """impact.com's second spelling of a parameter is not sent beside the first."""
    event = ORDER.replace(b'"path":"x"', b'"path":"EUR","currency":"EUR"')
    try:
        form = order_form(event, rudderToImpactProperty=[{"from": "properties.path", "to": pair[0]}])
    except ConfigurationError:
        return

    assert 1 == len(set(pair) & set(form))


@pytest.mark.parametrize("parameter", ["AppleIfa", "AndroidId", "GoogAId", "AppVer", "DeviceModel"])
def test_a_custom_row_needs_no_device(parameter: str) -> None:
    """A row of the operator's is sent from wherever it points, also when the event has no context.device."""
    form = order_form(rudderToImpactProperty=[{"from": "properties.path", "to": parameter}])

    assert "x" == form.get(parameter)


def test_parameter_sources_need_no_device() -> None:
    """Paths that replace a parameter's own are read, also when the event has no context.device."""
    form = order_form(parameterSources={"AppleIfa": ["properties.path"]})

    assert "x" == form.get("AppleIfa")


def test_an_event_name_too_long_for_a_code() -> None:
    """EventTypeCode holds 64 characters: a longer name is a mistake or a reject, never sent as it is."""
    name = "n" * 65
    event = ORDER.replace(b"Order Completed", name.encode())
    try:
        destination = compiled(actionEventNames=[name])
    except ConfigurationError as error:
        assert "64" in str(error)  # noqa: PT017 - one of two right answers
        return

    assert isinstance(transform(decode_event(event), destination), Reject)


@pytest.mark.parametrize(
    ("parameter", "size"),
    [("CustomerStatus", 255), ("PaymentType", 32), ("CountryCode", 2), ("ItemMpn{i}", 64), ("Text1", 64)],
)
def test_custom_text_keeps_to_its_size(parameter: str, size: int) -> None:
    """A custom parameter is never longer than impact.com documents for it."""
    event = ORDER.replace(
        b'"path":"x"', b'"path":"%s","products":[{"sku":"S","price":1,"path":"%s"}]' % ((b"y" * 300,) * 2)
    )
    rows = [{"from": "path" if "{i}" in parameter else "properties.path", "to": parameter}]
    key = "productsMapping" if "{i}" in parameter else "rudderToImpactProperty"
    outcome = transform(decode_event(event), compiled(**{key: rows}), decode_object(event))
    sent = outcome.request.form.get(parameter.replace("{i}", "1"), "") if isinstance(outcome, Send) else ""

    assert len(sent) <= size


@pytest.mark.parametrize("parameter", ["MediaId", "MediaPartnerId", "OrderDiscountRate"])
def test_custom_number_is_a_number(parameter: str) -> None:
    """A parameter that impact.com documents as a number never carries other text."""
    rows = [{"from": "properties.path", "to": parameter}]
    outcome = transform(decode_event(ORDER), compiled(rudderToImpactProperty=rows), decode_object(ORDER))

    assert not isinstance(outcome, Send) or parameter not in outcome.request.form


def test_a_configuration_nested_without_end_is_a_mistake() -> None:
    """Depth is bounded by us, not by the interpreter's stack, which differs from version to version."""
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"a": deep}

    assert ["configuration"] == list(problems({**BASE, "consentManagement": deep}))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("31415", "31415"),
        (31415, "31415"),
        ({"ios": "1", "android": "2"}, {"ios": "1", "android": "2"}),
        ({"ios": "1", "iosSwift": "1", "android": 2, "web": ""}, {"ios": "1", "android": "2"}),
        ({"ios": "1", "androidKotlin": "2", "web": "3"}, {"ios": "1", "android": "2"}),
        ({"ios": "1", "android": "1"}, "1"),
        ({"web": "31415", "cloud": "31415"}, "31415"),
        ({}, ""),
    ],
)
def test_an_app_id_for_each_platform(written: Any, expected: Any) -> None:
    """One id for all, or one for each platform, as an object or as RudderStack saves it by source type."""
    assert expected == parsed(impactAppId=written).impact_app_id


@pytest.mark.parametrize(
    "written", [{"ios": "1", "iosSwift": "2"}, {"windows": "1"}, {"ios": "x", "android": "1"}, True, ["1"]]
)
def test_an_app_id_that_is_none(written: Any) -> None:
    """Two ids for one platform, an unknown platform, or no id at all is a mistake."""
    assert "impactAppId" in mistakes(impactAppId=written)


@pytest.mark.parametrize(
    "value",
    [
        "REPLACE_ME",
        "REPLACE_AUTH_TOKEN",
        "replace-me",
        "change me",
        "changeme",
        "your_token",
        "<token>",
        "xxxx",
        "TODO",
        "...",
    ],
)
def test_a_placeholder_is_no_token(value: str) -> None:
    """What an example left to be filled in is named as a mistake, and not shown."""
    found = mistakes(apiKey=value)

    assert "apiKey: is a placeholder of an example: put in the account's own value" == found


@pytest.mark.parametrize("value", ["token-of-tests", "t", "enterprise-1", "yours", "xx", "IRplaceholder"])
def test_a_token_is_no_placeholder(value: str) -> None:
    """Words that only resemble one are tokens."""
    assert value == parsed(apiKey=value).api_key.reveal()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rudderToImpactProperty": [{"from": "a", "to": "Mony1"}]}, "no parameter Mony1; did you mean Money1?"),
        ({"rudderToImpactProperty": [{"from": "a", "to": "Text51"}]}, "no parameter Text51; did you mean Text"),
        (
            {"rudderToImpactProperty": [{"from": "a", "to": "Zzzz"}]},
            "no parameter Zzzz, unless customParameters names it",
        ),
        ({"productsMapping": [{"from": "a", "to": "ItemColor"}]}, "no parameter ItemColor{i}"),
        ({"parameterSources": {"Orderid": ["a"]}}, "no parameter Orderid; did you mean OrderId?"),
        ({"parameterSources": {"ItemSkus": ["a"]}}, "no parameter ItemSkus{i}; did you mean ItemSku{i}?"),
    ],
)
def test_a_parameter_that_impact_com_does_not_have(settings: dict[str, Any], message: str) -> None:
    """A misspelt parameter is a mistake, with what was probably meant."""
    assert message in mistakes(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"rudderToImpactProperty": [{"from": "a", "to": "Agreed"}], "customParameters": ["Agreed"]},
        {"productsMapping": [{"from": "a", "to": "ItemColor"}], "customParameters": ["ItemColor"]},
        {"parameterSources": {"total": ["properties.sum"], "ItemPrice": ["cost"], "Money1": ["properties.x"]}},
        {"productsMapping": [{"from": "a", "to": "ItemText"}, {"from": "a", "to": "ItemTotalDiscount"}]},
        {"rudderToImpactProperty": [{"from": "a", "to": "ImpactAppId"}, {"from": "b", "to": "Oid"}]},
    ],
)
def test_parameters_that_may_be_mapped(settings: dict[str, Any]) -> None:
    """Those that impact.com documents, older ones, and those of the operator's own."""
    assert compiled(**settings)


@pytest.mark.parametrize("key", ["actionEventNames", "installEventNames"])
@pytest.mark.parametrize("name", ["Order Refunded", "order_cancelled", "ORDER UPDATED", "Canceled Order"])
def test_what_becomes_of_an_order_is_no_conversion(key: str, name: str) -> None:
    """A refund among the conversions would be paid as an order."""
    assert f"{key}: {name!r} reports what became of an order" in mistakes(**{key: [name]})


@pytest.mark.parametrize("path", ["@click_id", "destination.campaignId", "properties.[", "'x.["])
def test_items_path_is_a_path_of_the_event(path: str) -> None:
    """The list of products stands in the event."""
    assert "itemsPath" in mistakes(itemsPath=path)


@pytest.mark.parametrize("value", ["total-shipping-tax", "tax", "lines-", "subtotal/10", "auto-tax", "SUBTOTAL"])
def test_an_order_amount_that_is_no_convention(value: str) -> None:
    """Fields and what comes off them stand in one order."""
    assert "orderAmount" in mistakes(orderAmount=value)
