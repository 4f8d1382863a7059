"""Sources and destinations of the file: what may be written, where secrets may stand, and mistakes that are named."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from impact_plugin.config.destinations import KnownDestination
from impact_plugin.config.fields import fields_of
from impact_plugin.config.manifest import load_manifest
from impact_plugin.config.references import MAX_SECRET_FILE_BYTES
from impact_plugin.config.settings import Settings, load_settings
from impact_plugin.config.sources import (
    MAX_KEY_LENGTH,
    Adapter,
    Authentication,
    Routing,
    RoutingFile,
    Scheme,
    Signature,
    Source,
    load_routing,
    make_routing,
)
from impact_plugin.errors import SettingsError
from impact_transformers import Destination, Secret
from tests.builders import CONFIG

KEY: Final = "0123456789abcdef"
OTHER_KEY: Final = "fedcba9876543210"
BASE64: Final = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EU: Final = CONFIG
SIGNED: Final = {"scheme": "segment_sha1", "secrets": [KEY]}
ROOT: Final = Path(__file__).parents[3]

Tree = dict[str, Any]


def tree(source: Mapping[str, Any] | None = None, **destinations: Tree) -> Tree:
    """What a file holds that has one source, ``shop``, and destinations, ``eu`` unless told."""
    held: Tree = {"destinations": destinations or {"eu": EU}}
    return held if source is None else {**held, "sources": {"shop": {"keys": [KEY], **source}}}


def shop(written: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Source:
    """The source of a file in which it is written so."""
    return make_routing(tree(written), environment or {}).sources["shop"]


def refusal(written: Tree, **environment: str) -> str:
    """The error about tables that cannot be used."""
    with pytest.raises(SettingsError) as refused:
        make_routing(written, environment)

    return str(refused.value)


def config_of(known: KnownDestination) -> Any:
    """The configuration of a compiled destination."""
    assert isinstance(known.destination, Destination)
    return known.destination.config


def variables(**named: str) -> dict[str, str]:
    """Variables of the plugin: ``SOURCES__SHOP__KEYS=...``."""
    return {f"IMPACT_PLUGIN__{name}": value for name, value in named.items()}


@pytest.fixture(name="write")
def write_fixture(tmp_path: Path) -> Callable[[str], Path]:
    """Lend a writer of the configuration file, the same one each time."""

    def write(text: str) -> Path:
        file = tmp_path / "impact.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return write


FILE: Final = """
[server]
port = 8080

[destinations.eu]
accountSID = "IRtest"
apiKey = "test-token-secret"
campaignId = 23224

[destinations.us]
accountSID = "IRtest"
apiKey = "${US_TOKEN}"
campaignId = "23225"
actionEventNames = ["Order Completed"]

[sources.shop]
keys = ["0123456789abcdef", "${SHOP_KEY}"]
destinations = ["us"]

[sources.hooks]
authentication = "none"
adapter = "posthog"
strict = true
signature.scheme = "standard_webhooks"
signature.secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
"""


def test_a_file_says_who_sends_and_where_it_goes(write: Callable[[str], Path]) -> None:
    """Sources and destinations stand in the file of the settings, which do not mind them."""
    environment = {"US_TOKEN": "us-token", "SHOP_KEY": OTHER_KEY, **variables(SOURCES__SHOP__STRICT="true")}
    file = write(FILE)
    routing = load_routing(file, environment)

    assert load_settings(file, environment).server.port == 8080
    assert list(routing.destinations) == ["eu", "us"]
    assert {name: known.id for name, known in routing.destinations.items()} == {"eu": "eu", "us": "us"}
    assert config_of(routing.destinations["us"]).api_key == Secret("us-token")
    assert routing.sources == {
        "shop": Source("shop", (Secret(KEY), Secret(OTHER_KEY)), destinations=("us",), strict=True),
        "hooks": Source(
            "hooks",
            adapter="posthog",
            authentication="none",
            signature=Signature("standard_webhooks", (Secret(f"whsec_{BASE64}"),)),
            strict=True,
        ),
    }


def test_without_a_file_nothing_is_configured_or_variables_do_it() -> None:
    """The environment alone can name sources and destinations, which the file does not have."""
    environment = variables(
        SOURCES__SHOP__KEYS=f"{KEY}, {OTHER_KEY},",
        DESTINATIONS__EU__ACCOUNTSID="IRtest",
        DESTINATIONS__EU__APIKEY="test-token-secret",
        DESTINATIONS__EU__CAMPAIGNID="23224",
    )
    routing = load_routing(None, environment)

    assert load_routing(None, {"PATH": "/bin", "IMPACT_PLUGIN": "x"}) == Routing({}, {})
    assert routing.sources == {"shop": Source("shop", (Secret(KEY), Secret(OTHER_KEY)))}
    assert config_of(routing.destinations["eu"]).campaign_id == "23224"
    assert load_settings(None, environment) == Settings()


def test_a_source_feeds_all_destinations_unless_it_names_some() -> None:
    """A source written before there was a choice goes on to feed what is there."""
    routing = make_routing(
        {
            "destinations": {"eu": EU, "us": EU, "asia": EU},
            "sources": {"all": {"keys": [KEY]}, "some": {"keys": [OTHER_KEY], "destinations": ["us", "eu"]}},
        },
        {},
    )

    assert [known.id for known in routing.destinations_of(routing.sources["all"])] == ["eu", "us", "asia"]
    assert [known.id for known in routing.destinations_of(routing.sources["some"])] == ["us", "eu"]
    assert [known.id for known in routing.destinations_of(Source("old", destinations=("gone", "us")))] == ["us"]


def test_a_key_leads_to_its_source_and_to_no_other() -> None:
    """Every live key of a source finds it; anything else, whatever a header may hold, finds nothing."""
    routing = make_routing(
        {
            "destinations": {"eu": EU},
            "sources": {"a": {"keys": [KEY, KEY[::-1]]}, "b": {"keys": [OTHER_KEY[:-1] + "x"]}},
        },
        {},
    )

    found = [routing.source_of_key(key) for key in (KEY, KEY[::-1], OTHER_KEY[:-1] + "x")]

    assert [source and source.name for source in found] == ["a", "a", "b"]
    assert {routing.source_of_key(key) for key in ("", KEY[:-1], f"{KEY} ", "\ud800", "é" * 10_000)} == {None}


def test_a_source_knows_its_keys() -> None:
    """All keys are compared, by digests of one length, so that time tells neither which nor how much was right."""
    source = Source("shop", (Secret(KEY), Secret(OTHER_KEY)))

    assert source.has_key(KEY)
    assert source.has_key(OTHER_KEY)
    assert [key for key in ("", KEY[:-1], f"{KEY}x", "\ud800", "?" * 16) if source.has_key(key)] == []
    assert not Source("hooks").has_key("")


def test_secrets_do_not_show() -> None:
    """Whoever logs a source logs no key."""
    source = shop({"signature": SIGNED})

    assert KEY not in repr(source)
    assert KEY not in repr(make_routing(tree(source={}), {}))


VALUES: Final[dict[str, tuple[str, Any, Any]]] = {
    "keys": (f"{OTHER_KEY}, {KEY}", [OTHER_KEY, KEY], (Secret(OTHER_KEY), Secret(KEY))),
    "adapter": ("posthog", "posthog", "posthog"),
    "authentication": ("basic", "basic", "basic"),
    "header": ("X-Key", "X-Key", "X-Key"),
    "destinations": ("eu,", ["eu"], ("eu",)),
    "max_event_kb": ("32", 32, 32),
    "max_batch_mb": ("1", 1, 1),
    "max_webhook_mb": ("8", 8, 8),
    "strict": ("true", True, True),
    "integrations": ("Impact, Ours", ["Impact", "Ours"], ("Impact", "Ours")),
    "signature.scheme": ("jitsu_hmac", "jitsu_hmac", "jitsu_hmac"),
    "signature.secrets": (f"{OTHER_KEY},{KEY}", [OTHER_KEY, KEY], (Secret(OTHER_KEY), Secret(KEY))),
    "signature.header": ("X-Sign", "X-Sign", "X-Sign"),
    "signature.window_seconds": ("60.5", 60.5, 60.5),
    "signature.first_item": ("true", True, True),
}
"""By key: what stands in a variable, in the file, and what the service reads."""


def key_names(kind: type[msgspec.Struct]) -> list[str]:
    """The keys of a table, read from the type itself."""
    return [field.name for field in msgspec.structs.fields(kind) if field.name != "name"]


def test_every_key_is_documented_and_has_a_test() -> None:
    """A key that is not explained, or that no test turns, is no key."""
    assert sorted(key_names(Source)) == sorted(fields_of(Source))
    assert sorted(key_names(Signature)) == sorted(fields_of(Signature))
    assert set(VALUES) == {*fields_of(Source), *(f"signature.{key}" for key in fields_of(Signature))} - {"signature"}


def test_the_reference_explains_every_key_and_choice() -> None:
    """Whatever may be written has an entry in the reference."""
    page = (ROOT / "docs" / "reference" / "sources.md").read_text(encoding="utf-8")
    choices = [*get_args(Adapter), *get_args(Authentication), *get_args(Scheme)]

    assert [name for name in (*fields_of(Source), *fields_of(Signature)) if f"`{name}`" not in page] == []
    assert [choice for choice in choices if choice not in page] == []


def placed(key: str, value: Any, base: Tree) -> Tree:
    """A source's table with one key set."""
    outer, _, inner = key.rpartition(".")
    return {**base, outer: {**base[outer], inner: value}} if outer else {**base, inner: value}


def read_key(source: Source, key: str) -> Any:
    """The value of ``key`` or ``signature.key``."""
    outer, _, inner = key.rpartition(".")
    return getattr(getattr(source, outer) if outer else source, inner)


@pytest.mark.parametrize("key", sorted(VALUES))
def test_a_key_works_in_the_file_and_as_a_variable(key: str) -> None:
    """Both set exactly that key, and the variable wins."""
    base: Tree = {"signature": SIGNED}
    if key == "header":
        base["authentication"] = "header"
        base["header"] = "X-Other"
    variable, written, expected = VALUES[key]
    name = f"IMPACT_PLUGIN__SOURCES__SHOP__{key.replace('.', '__').upper()}"
    by_file = shop(placed(key, written, base))
    by_variable = shop(base, {name: variable})

    assert read_key(by_file, key) == expected
    assert by_variable == by_file
    assert by_variable != shop(base)


@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("IMPACT_PLUGIN__SOURCES__MY_SHOP__STRICT", "my-shop"),
        ("impact_plugin__sources__my_shop__strict", "my-shop"),
        ("IMPACT_PLUGIN__Sources__My-Shop__Strict", "my-shop"),
        ("IMPACT_PLUGIN__SOURCES__OTHER_SHOP__STRICT", "other_shop"),
    ],
)
def test_variables_match_names_without_case_and_hyphens(variable: str, key: str) -> None:
    """Not every shell lets a variable have small letters or hyphens."""
    held = {"my-shop": {"keys": [KEY]}, "other_shop": {"keys": [OTHER_KEY]}}
    routing = make_routing({"destinations": {"eu": EU}, "sources": held}, {variable: "true"})

    assert [name for name, source in routing.sources.items() if source.strict] == [key]


def test_a_variable_for_a_destination_is_read_by_the_type_of_its_key() -> None:
    """Lists with commas, nested values as JSON, and another spelling of a key is replaced."""
    named = variables(
        DESTINATIONS__EU__AUTHTOKEN="other-token",
        DESTINATIONS__EU__ACTIONEVENTNAMES="Order Completed, Signed Up",
        DESTINATIONS__EU__INSTALLEVENTNAMES='["Installed, at last"]',
        DESTINATIONS__EU__EVENTTYPES='{"Signed Up": {"code": "SIGNUP", "kind": "lead"}}',
        DESTINATIONS__EU__CLICKWINDOWMINUTES="5",
        DESTINATIONS__EU__ENABLEPAGEEVENTS="false",
        DESTINATIONS__EU__TRACKINGDOMAINS="go.shop.example",
    )
    config = config_of(make_routing(tree(), named).destinations["eu"])

    assert config.api_key == Secret("other-token")
    assert config.action_event_names == ("Order Completed", "Signed Up")
    assert config.install_event_names == ("Installed, at last",)
    assert [(one.name, one.kind, one.code) for one in config.event_types] == [("Signed Up", "lead", "SIGNUP")]
    assert (config.click_window_minutes, config.enable_page_events) == (5, False)
    assert config.tracking_domains == ("go.shop.example",)


def test_every_key_of_a_destination_has_a_variable() -> None:
    """Spellings that differ in case only would leave one of two without."""
    names = [name.upper() for key in load_manifest().configuration for name in (key.key, *key.aliases)]

    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SOURCES__SHOP__KEIS", KEY, "there is no key KEIS; did you mean KEYS?"),
        ("SOURCES__SHOP__SIGNATURE__SECRET", KEY, "did you mean SIGNATURE__SECRETS?"),
        ("SOURCES__SHOP__SIGNATURE", KEY, "there is no key SIGNATURE"),
        ("SOURCES__SHOP__NAME", "x", "there is no key NAME"),
        ("SOURCES__SHOP", KEY, "must be IMPACT_PLUGIN__SOURCES__NAME__KEY"),
        ("SOURCES", KEY, "must be IMPACT_PLUGIN__SOURCES__NAME__KEY"),
        ("SOURCES____KEYS", KEY, "must be IMPACT_PLUGIN__SOURCES__NAME__KEY"),
        ("DESTINATIONS__EU__API_KEY", KEY, "there is no key API_KEY; did you mean APIKEY?"),
        ("DESTINATIONS__EU__EVENTTYPES", f"{{{KEY}", "must be JSON"),
        ("DESTINATIONS__EU__EVENTTYPES", "[" * 100_000, "must be JSON"),
        ("DESTINATIONS__EU__EVENTTYPES", '{"\udcff": "1"}', "must be JSON"),
        ("DESTINATIONS__EU__ACTIONEVENTNAMES", '["a"', "must be JSON"),
    ],
)
def test_a_variable_that_cannot_be_meant_is_named(name: str, value: str, expected: str) -> None:
    """A mistyped variable does not do nothing in silence."""
    message = refusal(tree({}), **variables(**{name: value}))

    assert message.startswith(f"IMPACT_PLUGIN__{name}: ")
    assert expected in message
    assert KEY not in message


def test_a_variable_that_could_mean_two_names_is_refused() -> None:
    """``a-b`` and ``a_b`` may both be in a file, but no variable can tell them apart."""
    held = {"a-b": {"keys": [KEY]}, "a_b": {"keys": [OTHER_KEY]}}
    written = {"destinations": {"eu": EU}, "sources": held}

    assert len(make_routing(written, {}).sources) == 2
    assert "could mean a-b or a_b" in refusal(written, **variables(SOURCES__A_B__STRICT="true"))


def test_a_variable_does_not_hide_a_mistake_of_the_file() -> None:
    """``signature = 5`` in the file is told, and the tables that were given stay as they were."""
    written = tree({"signature": dict(SIGNED)})
    make_routing(written, variables(SOURCES__SHOP__SIGNATURE__HEADER="X-Sign", SOURCES__SHOP__STRICT="true"))

    assert written == tree({"signature": SIGNED})
    assert "signature must be a table" in refusal(
        tree({"signature": 5}), **variables(SOURCES__SHOP__SIGNATURE__HEADER="X-Sign")
    )


def test_references_lead_to_variables_and_files(tmp_path: Path) -> None:
    """Secrets may stand in the environment or in files, as Docker, Kubernetes and systemd hand them over."""
    secret = tmp_path / "key"
    secret.write_text(f"\n {OTHER_KEY}\n", encoding="utf-8")
    environment = {"KEY": KEY, "PART": "0123", "FOLDER": str(tmp_path), "HEADER": "X-${PART}"[:2]}
    written = {
        "keys": ["${KEY}", "${PART}-${PART}-4567-89ab", f"file:{secret}"],
        "authentication": "header",
        "header": "${HEADER}Key",
        "signature": {"scheme": "segment_sha1", "secrets": ["file:${FOLDER}/key", "$${KEY}-0123456789"]},
    }
    source = shop(written, environment)
    known = make_routing(tree(eu={**EU, "apiKey": "file:${FOLDER}/key"}), environment).destinations["eu"]

    assert source.keys == (Secret(KEY), Secret("0123-0123-4567-89ab"), Secret(OTHER_KEY))
    assert source.header == "X-Key"
    assert source.signature is not None
    assert source.signature.secrets == (Secret(OTHER_KEY), Secret("${KEY}-0123456789"))
    assert config_of(known).api_key == Secret(OTHER_KEY)


def test_references_work_in_variables_too(tmp_path: Path) -> None:
    """A container is told where its secrets are, not the secrets."""
    secret = tmp_path / "key"
    secret.write_text(OTHER_KEY, encoding="utf-8")
    named = variables(SOURCES__SHOP__KEYS=f"file:{secret},${{KEY}}", DESTINATIONS__EU__APIKEY=f"file:{secret}")
    routing = make_routing(tree({}), {**named, "KEY": f"{KEY},x"})

    assert routing.sources["shop"].keys == (Secret(OTHER_KEY), Secret(f"{KEY},x"))
    assert config_of(routing.destinations["eu"]).api_key == Secret(OTHER_KEY)


def test_what_a_reference_leads_to_is_not_read_for_references() -> None:
    """Whoever sets a variable cannot have a file or another variable read."""
    source = shop({"keys": ["${KEY}"]}, {"KEY": "${OTHER}-0123456789", "OTHER": "x"})

    assert source.keys == (Secret("${OTHER}-0123456789"),)
    assert "colon" in refusal(tree({"keys": ["${KEY}"]}), KEY="file:/etc/hostname-of-mine")


def test_files_are_read_for_secrets_only(tmp_path: Path) -> None:
    """A campaign or the name of an event is no secret, and text that begins so stays text."""
    (tmp_path / "names").write_text("Order Completed", encoding="utf-8")
    written = tree(eu={**EU, "actionEventNames": [f"file:{tmp_path}/names"]})

    assert config_of(make_routing(written, {}).destinations["eu"]).action_event_names == (f"file:{tmp_path}/names",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("absent", "cannot be read: No such file"),
        ("folder", "is not a file"),
        ("pipe", "is not a file"),
        ("large", f"has more than {MAX_SECRET_FILE_BYTES:,} bytes"),
        ("empty", "is empty"),
        ("binary", "is not UTF-8 text"),
        ("\0", "cannot be the name of a file"),
        ("n" * 300, "cannot be read: File name too long"),
    ],
)
def test_a_file_that_holds_no_secret_is_named(tmp_path: Path, name: str, expected: str) -> None:
    """The error says which file and why, and a pipe does not stop the start."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * (MAX_SECRET_FILE_BYTES + 1))
    (tmp_path / "empty").write_text(" \n", encoding="utf-8")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    message = refusal(tree({"keys": [KEY, f"file:{tmp_path}/{name}"]}))

    assert message.startswith("sources.shop.keys[1]: ")
    assert str(tmp_path) in message
    assert expected in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${ABSENT}", "the variable ABSENT is not set in the service's environment"),
        ("${}", "must name an environment variable; write $${ for a plain ${"),
        ("${not a name}", "must name an environment variable"),
        ("${OPEN", "must name an environment variable"),
        ("file:relative/path", "must have an absolute path, such as file:/run/secrets/name"),
        ("file:${TOKEN}", "file:${TOKEN} must have an absolute path"),
        ("file:/nowhere/${TOKEN}", "file:/nowhere/${TOKEN} cannot be read"),
        ("${BYTES}", "must be UTF-8 text"),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(text: str, expected: str) -> None:
    """The error has the path and the reference as it is written, never a value."""
    message = refusal(tree({"signature": {**SIGNED, "secrets": [text]}}), TOKEN="hunter2-token", BYTES="a\udcff")

    assert message.startswith("sources.shop.signature.secrets[0]: ")
    assert expected in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"kyes": [KEY]}, "kyes: there is no such key; did you mean keys?"),
        ({"name": "x"}, "name: there is no such key"),
        ({"a b\n": "x"}, "'a b\\n': there is no such key"),
        ({"keys": []}, "keys: must hold 1 to 16 keys"),
        ({"keys": [f"{KEY}{number}" for number in range(17)]}, "keys: must hold 1 to 16 keys"),
        ({"keys": KEY}, "keys: must be a list of text values"),
        ({"keys": [5]}, "keys: must be a list of text values"),
        ({"keys": [KEY, KEY[1:]]}, "keys[1]: must have 16 to 256 characters; openssl rand -hex 32 makes one"),
        ({"keys": ["x" * (MAX_KEY_LENGTH + 1)]}, "keys[0]: must have 16 to 256 characters"),
        ({"keys": [f"{KEY}:x"]}, "keys[0]: must not have a colon: Jitsu cuts"),
        ({"keys": [f"{KEY} x"]}, "keys[0]: must be of printable ASCII characters, without spaces"),
        ({"keys": [f"{KEY}é"]}, "keys[0]: must be of printable ASCII"),
        ({"keys": [f"{KEY}\x7f"]}, "keys[0]: must be of printable ASCII"),
        ({"keys": [f"{KEY}\n"]}, "keys[0]: must be of printable ASCII"),
        ({"keys": [KEY, KEY]}, "keys[1]: is the same as sources.shop.keys[0]"),
        ({"authentication": "url_token", "keys": [f"{KEY}+/="]}, "keys[0]: must be of letters, digits and . _ ~ -"),
        ({"adapter": "jitsu"}, "adapter: must be one of segment, posthog, tracardi, jitsu_reverse_etl"),
        ({"authentication": "digest"}, "authentication: must be one of key, bearer, basic, header, url_token, none"),
        ({"authentication": "none", "keys": []}, "authentication: none is for signed requests only"),
        ({"authentication": "none", "signature": SIGNED}, "keys: are not asked for with authentication none"),
        ({"authentication": "header"}, "header: must name the header that holds the key"),
        ({"authentication": "header", "header": "X Key"}, "header: must be the name of a header"),
        ({"authentication": "header", "header": "X-Key\n"}, "header: must be the name of a header"),
        ({"header": "X-Key"}, "header: is for authentication header only"),
        ({"destinations": "eu"}, "destinations: must be a list of text values"),
        ({"destinations": ["eu", "eux"]}, "destinations[1]: there is no destination of that name; did you mean eu?"),
        ({"destinations": ["asia"]}, "destinations[0]: there is no destination of that name; there is eu"),
        ({"destinations": ["eu", "eu"]}, "destinations[1]: eu is named twice"),
        ({"integrations": ["Impact", " "]}, "integrations: must not hold an empty name"),
        ({"max_event_kb": 0}, "max_event_kb: must be a whole number between 1 and 32,768"),
        ({"max_event_kb": "many"}, "max_event_kb: must be a whole number"),
        ({"max_batch_mb": 65}, "max_batch_mb: must be a whole number between 1 and 64"),
        ({"max_webhook_mb": 513}, "max_webhook_mb: must be a whole number between 1 and 512"),
        ({"strict": "maybe"}, "strict: must be true or false"),
        ({"strict": True, "adapter": "jitsu_reverse_etl"}, "strict: must be false, Jitsu's reverse ETL"),
        ({"strict": True, "signature": {**SIGNED, "scheme": "jitsu_hmac"}}, "strict: must be false, Jitsu retries"),
        ({"signature": "segment_sha1"}, "signature: must be a table, with a scheme and secrets"),
        ({"signature": {"secrets": [KEY]}}, "signature.scheme: is required"),
        ({"signature": {"scheme": "segment_sha1"}}, "signature.secrets: is required"),
        ({"signature": {**SIGNED, "scheme": "md5"}}, "signature.scheme: must be one of segment_sha1, jitsu_hmac"),
        ({"signature": {**SIGNED, "secrets": []}}, "signature.secrets: must hold 1 to 16 secrets"),
        ({"signature": {**SIGNED, "secrets": ["short"]}}, "signature.secrets[0]: must have at least 16 characters"),
        ({"signature": {**SIGNED, "secret": KEY}}, "signature.secret: there is no such key; did you mean secrets?"),
        (
            {"signature": {**SIGNED, "window_seconds": 0}},
            "signature.window_seconds: must be a number between 1 and 86,400",
        ),
        ({"signature": {**SIGNED, "window_seconds": "nan"}}, "signature.window_seconds: must be a number between"),
        ({"signature": {**SIGNED, "header": "X:Sign"}}, "signature.header: must be the name of a header"),
        (
            {"signature": {"scheme": "jitsu_hmac", "secrets": [KEY], "first_item": True}},
            "signature.first_item: is for segment_sha1 only",
        ),
        (
            {"signature": {"scheme": "standard_webhooks", "secrets": ["whsec_no-base64-at-all"]}},
            "signature.secrets[0]: must be base64, with or without whsec_ in front",
        ),
        (
            {"signature": {"scheme": "standard_webhooks", "secrets": [BASE64[:20]]}},
            "signature.secrets[0]: must be base64 of at least 24 bytes",
        ),
    ],
)
def test_a_mistake_in_a_source_has_its_path(written: Tree, expected: str) -> None:
    """The service does not start with a source it cannot serve, and says where and what would do."""
    message = refusal(tree(written))

    assert message.startswith(f"sources.shop.{expected}")
    assert KEY not in message


@pytest.mark.parametrize("named", ["asia", "e u"])
def test_an_error_quotes_names_that_are_not_plain(named: str) -> None:
    """A control character in the name of a destination does not reach a terminal or the log."""
    message = refusal({"sources": {"shop": {"keys": [KEY], "destinations": [named]}}, "destinations": {"e\x1fu": {}}})

    assert "'e\\x1fu'" in message
    assert message.isprintable()


@pytest.mark.parametrize("key", ["max_event_kb", "max_batch_mb", "max_webhook_mb"])
def test_limits_may_be_reached(key: str) -> None:
    """The ends of a range belong to it."""
    setting = fields_of(Source)[key].setting
    for limit in (setting.minimum, setting.maximum):
        assert getattr(shop({key: limit}), key) == limit


def test_secrets_of_standard_webhooks_may_have_any_padding() -> None:
    """As issued: with ``whsec_`` or without, padded or not."""
    secrets = [BASE64, f"whsec_{BASE64}", f"{BASE64}YQ==", f"{BASE64}YQ"]
    source = shop({"signature": {"scheme": "standard_webhooks", "secrets": secrets}})

    assert source.signature is not None
    assert [secret.reveal() for secret in source.signature.secrets] == secrets


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"sources": 5}, "sources: must be tables of the file, [sources.NAME]"),
        ({"destinations": []}, "destinations: must be tables of the file"),
        ({"sources": {"shop": 5}}, "sources.shop: must be a table of the file"),
        ({"sources": {"keys": [KEY]}}, "sources.keys: must be a table of the file"),
        ({"sources": {"Shop": {"keys": [KEY]}}, "destinations": {"eu": EU}}, "sources.Shop: a name must be of small"),
        ({"destinations": {"-eu": EU}}, "destinations.-eu: a name must be of small letters"),
        ({"destinations": {"e" * 65: EU}}, f"destinations.'{'e' * 64}': a name must be of small letters"),
        ({"sources": {"shop": {"keys": [KEY]}}}, "sources.shop: there is no destination for its events; add [dest"),
        (
            {"sources": {"a": {"keys": [KEY]}, "b": {"keys": [OTHER_KEY, KEY]}}, "destinations": {"eu": EU}},
            "sources.b.keys[1]: is the same as sources.a.keys[0]; a key must have one owner",
        ),
    ],
)
def test_a_mistake_in_the_tables_has_its_path(written: Tree, expected: str) -> None:
    """Names and tables are checked before what is in them."""
    message = refusal(written)

    assert message.startswith(expected)
    assert KEY not in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("campaignId", "abc", "campaignId: 'abc' does not fit the pattern"),
        ("campaignId", "${TOKEN}", "campaignId: the value cannot be used (not shown"),
        ("campaignId", "env.IMPACT_VAR_TOKEN", "campaignId: the value cannot be used (not shown"),
        ("campaignId", "", "campaignId: is required"),
        ("apiKey", "${EMPTY}", "apiKey: is required"),
        ("apiKey", ["hunter2"], "apiKey: must be text, not a list"),
        ("apiKey", "env.hunter2", "apiKey: only variables whose names start with IMPACT_VAR_ can be used here"),
        ("apiKey", "env.IMPACT_VAR_ABSENT", "apiKey: the variable IMPACT_VAR_ABSENT is not set"),
        ("apiKey", "{{ hunter2[ }}", "apiKey: the value cannot be used (not shown"),
        ("campaignId", "{{ event.a[ }}", "campaignId: "),
        ("campaignId", "env.IMPACT_VAR_TEMPLATE", ": a value that comes from a variable cannot be used"),
        ("campainId", "1", "campainId: there is no such key; did you mean campaignId?"),
        ("refundEventNames", ["x"], "refundEventNames: reversal and modification events are not available yet"),
        ("trackingDomains", ["https://x", "${TOKEN}"], "trackingDomains[0]: the value cannot be used (not shown"),
        ("rudderToImpactProperty", {"@nowhere": "SubId1"}, "mapping: '@nowhere' is no source"),
        ("rudderToImpactProperty", [{"from": "${AT}", "to": "SubId1"}], "mapping: the value cannot be used"),
        ("parameterSources", {"OrderId": ["@nowhere"]}, "parameterSources.OrderId: '@nowhere' is no source"),
    ],
)
def test_a_mistake_in_a_destination_has_its_path(key: str, value: Any, expected: str) -> None:
    """What a router would be told event by event refuses the file, and shows no secret even where one is misplaced."""
    environment = {
        "TOKEN": "hunter2",
        "AT": "@hunter2",
        "EMPTY": "",
        "IMPACT_VAR_TOKEN": "hunter2",
        "IMPACT_VAR_TEMPLATE": "{{ hunter2[ }}",
    }
    message = refusal(tree(eu={**EU, key: value}), **environment)

    assert f"destinations.eu{'' if expected.startswith(':') else '.'}{expected}" in message
    assert "hunter2" not in message


def test_every_mistake_of_a_destination_is_told_at_once() -> None:
    """Whoever corrects a file need not start the service once for each."""
    message = refusal({"destinations": {"eu": {"campaignId": "x"}}})

    assert [part.partition(":")[0] for part in message.split("; d")] == [
        "destinations.eu.accountSID",
        "estinations.eu.apiKey",
        "estinations.eu.campaignId",
    ]


def test_every_mistake_of_all_tables_is_told_at_once() -> None:
    """Of variables, names, destinations, sources and signatures; a source of a wrong destination is right itself."""
    written = {
        "destinations": {"eu": {**EU, "campainId": "1", "campaignId": "x"}, "Bad": EU},
        "sources": {
            "shop": {"keys": [KEY], "destinations": ["eu"], "max_event_kb": 0, "signature": {"scheme": "md5"}},
            "app": {"keys": ["short"], "header": "X-Key", "destinations": ["us"]},
            "crm": {"keys": [OTHER_KEY], "destinations": ["eu", "Bad"]},
        },
    }
    with pytest.raises(SettingsError) as refused:
        make_routing(written, variables(SOURCES__SHOP__KEIS=KEY))

    assert [problem.path for problem in refused.value.problems] == [
        "IMPACT_PLUGIN__SOURCES__SHOP__KEIS",
        "destinations.Bad",
        "destinations.eu.campainId",
        "destinations.eu.campaignId",
        "sources.shop.max_event_kb",
        "sources.shop.signature.scheme",
        "sources.shop.signature.secrets",
        "sources.app.destinations[0]",
        "sources.app.header",
        "sources.app.keys[0]",
    ]


def test_variables_of_destinations_are_those_routers_may_use() -> None:
    """``env.IMPACT_VAR_NAME`` means the same in the file as in a router's configuration."""
    routing = make_routing(tree(eu={**EU, "apiKey": "env.IMPACT_VAR_TOKEN"}), {"IMPACT_VAR_TOKEN": "var-token"})

    assert config_of(routing.destinations["eu"]).api_key == Secret("var-token")


def test_a_corrected_file_is_read_again(write: Callable[[str], Path]) -> None:
    """What changed is named, and what did not is the same object, with all it has compiled."""
    environment = {"US_TOKEN": "us-token", "SHOP_KEY": OTHER_KEY}
    held = RoutingFile(write(FILE), environment)
    before = held.current
    write(FILE.replace("23225", "23226").replace('["us"]', '["us", "eu"]').replace("sources.hooks", "sources.later"))
    changed = held.reload()
    after = held.current

    assert changed == (
        "sources.shop changed",
        "sources.hooks removed",
        "sources.later added",
        "destinations.us changed",
    )
    assert after.destinations["eu"] is before.destinations["eu"]
    assert config_of(after.destinations["us"]).campaign_id == "23226"
    assert held.reload() == ()
    assert held.current.destinations["us"] is after.destinations["us"]


def test_a_secret_in_a_file_is_exchanged_by_reading_again(write: Callable[[str], Path], tmp_path: Path) -> None:
    """The configuration may stay as it is when a secret does not."""
    secret = tmp_path / "token"
    secret.write_text("one", encoding="utf-8")
    held = RoutingFile(
        write(f'[destinations.eu]\naccountSID="IR"\ncampaignId="1"\napiKey="file:{secret}"\n'),
        {},
    )
    secret.write_text("two", encoding="utf-8")

    assert held.reload() == ("destinations.eu changed",)
    assert config_of(held.current.destinations["eu"]).api_key == Secret("two")


@pytest.mark.parametrize(
    "text",
    [
        "[sources.shop\n",
        '[sources.shop]\nkeys = ["0123456789abcdef"]\n',
        '[destinations.eu]\ncampaignId = "x"\n',
        "a = " + "[" * 5000,
        "a = " + "9" * 5000,
    ],
)
def test_a_file_that_cannot_be_used_changes_nothing(write: Callable[[str], Path], text: str) -> None:
    """A bad file is refused and the service goes on with the one before, also after a second try."""
    environment = {"US_TOKEN": "us-token", "SHOP_KEY": OTHER_KEY}
    held = RoutingFile(write(FILE), environment)
    before = held.current
    write(text)
    for _ in range(2):
        with pytest.raises(SettingsError):
            held.reload()
    unchanged = held.current
    write(FILE)

    assert unchanged is before
    assert held.reload() == ()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The first reading fails as that of the settings does."""
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read"):
        RoutingFile(tmp_path / "absent.toml", {})


HIDDEN: Final = "s3cr3t-hunter2"
"""What stands where secrets do, in the trees below."""

leaves = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["${HIDDEN}", "x${HIDDEN}", "$${HIDDEN}", "${", "env.IMPACT_VAR_HIDDEN", "file:${HIDDEN}", "{{ a[ }}", "@x"]
    ),
    st.sampled_from(["eu", "header", "none", "segment_sha1", "standard_webhooks", "X-Key", "1", "true", "nan", KEY]),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.datetimes(),
    st.dates(),
    st.times(),
)
names = st.one_of(st.text(max_size=8), st.sampled_from(["eu", "shop", "eventName", "from", "to", "kind", "id", "web"]))
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
hidden = st.sampled_from(
    [HIDDEN, f"{HIDDEN}:", f"{HIDDEN} {HIDDEN}", f"{{{{ {HIDDEN}[ }}}}", f"env.{HIDDEN}", "${HIDDEN}", f"${{{HIDDEN}"]
)
secrets = hidden | st.lists(hidden | values, max_size=3) | st.dictionaries(names, hidden, max_size=2)
SPELLINGS: Final = [spelling for key in load_manifest().configuration for spelling in (key.key, *key.aliases)]


def some(known: list[str], secret: set[str], **tables: st.SearchStrategy[Any]) -> st.SearchStrategy[Tree]:
    """Tables with known keys and others, and secrets where they belong."""
    optional = dict.fromkeys(known, values) | dict.fromkeys(secret, values | secrets) | tables
    return st.builds(
        lambda fitting, others: {**others, **fitting},
        st.fixed_dictionaries({}, optional=optional),
        st.dictionaries(names, values, max_size=1),
    )


destination_tables = st.builds(
    lambda base, more: {**base, **more}, st.sampled_from([{}, EU]), some(SPELLINGS, {"apiKey", "authToken"})
)
source_tables = some(
    list(fields_of(Source)), {"keys"}, signature=some(list(fields_of(Signature)), {"secrets"}, secrets=secrets) | values
)


def tables_of(tables: st.SearchStrategy[Tree]) -> st.SearchStrategy[Any]:
    """Tables by name, or something else in their place."""
    return st.dictionaries(st.sampled_from(["eu", "us", "shop", "my-shop", "Bad"]) | names, tables | values) | values


def said_of(written: Tree, **environment: str) -> str:
    """All that may be logged about tables: what was made of them, or the error with its causes."""
    try:
        routing = make_routing(written, {"HIDDEN": HIDDEN, "IMPACT_VAR_HIDDEN": HIDDEN, **environment})
    except SettingsError as error:
        return f"{error}{error.__cause__ or ''}"
    return f"made {routing.sources!r} {[known.problem for known in routing.destinations.values()]}"


@given(
    written=st.fixed_dictionaries(
        {}, optional={"sources": tables_of(source_tables), "destinations": tables_of(destination_tables)}
    ),
    named=st.dictionaries(
        st.sampled_from(
            [
                *(f"SOURCES__{name}__{key.upper()}" for name in ("SHOP", "NEW") for key in fields_of(Source)),
                *(f"SOURCES__SHOP__SIGNATURE__{key.upper()}" for key in fields_of(Signature)),
                *(f"DESTINATIONS__EU__{key.upper()}" for key in SPELLINGS),
                "SOURCES",
                "SOURCES__",
            ]
        ),
        st.text(max_size=20) | st.sampled_from(["${HIDDEN}", "[]", "{", '{"a": "${HIDDEN}"}', "a,b", KEY]),
        max_size=3,
    ),
)
def test_whatever_is_written_is_used_or_refused_without_its_secrets(written: Tree, named: dict[str, str]) -> None:
    """No file and no environment makes the start fail otherwise than with a message, and none shows a secret."""
    said = said_of(written, **variables(**named))

    assert HIDDEN not in said
    assert said.isprintable()


@given(table=destination_tables)
def test_a_destination_of_any_form_is_used_or_refused_without_its_secrets(table: Tree) -> None:
    """The same for one destination, whatever its keys hold."""
    said = said_of({"destinations": {"eu": table}})

    assert HIDDEN not in said
    assert said.isprintable()
    assert said.startswith(("destinations.eu", "made"))


@given(table=source_tables)
def test_a_source_of_any_form_is_used_or_refused_without_its_secrets(table: Tree) -> None:
    """The same for one source."""
    said = said_of(tree() | {"sources": {"shop": table}})

    assert HIDDEN not in said
    assert said.isprintable()
    assert said.startswith(("sources.shop", "made"))
