"""A destination ready for work: its configuration resolved into routes and compiled mapping tables, once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

import msgspec

from impact_transformers import fields
from impact_transformers.click_ids import click_id_finder
from impact_transformers.clicks import SEPARATOR, ClickRules, compile_rules
from impact_transformers.compile import Compiled, Fill, Named, compile_fill, consent_source_of, source_of, trace
from impact_transformers.configuration import (
    ConfigKey,
    ConfigurationError,
    DestinationConfig,
    EventType,
    Mapped,
    Problem,
    fill_templates,
    fill_variables,
    find_templates,
    parse_configuration,
)
from impact_transformers.consent import listed_consent, parse_consent_path
from impact_transformers.event_names import APPLICATION_INSTALLED, ORDER_ALIASES, ORDER_COMPLETED
from impact_transformers.fields import MappingRow, rule_of
from impact_transformers.normalize import as_text, truth
from impact_transformers.outcome import UnusableValueError
from impact_transformers.paths import NAMED_SOURCE, PathError, dig, parse_path
from impact_transformers.sources import NAMED, app_id_finder
from impact_transformers.templates import TEMPLATE, constant_of
from impact_transformers.trail import Step

RESOLVED_TEMPLATES: Final = 1024
"""How many resolutions of one dynamic configuration are kept compiled; the least recently used goes first."""


class Plan(msgspec.Struct, frozen=True):
    """One table, compiled for a destination: ``fill`` does what ``rows`` say."""

    rows: tuple[Compiled, ...]
    fill: Fill
    named: Named
    item: bool = False

    def trace(self, subject: Any, message: Any, index: str = "") -> Iterator[Step]:
        """How each parameter of the table comes about."""
        return trace(self.rows, subject, message, self.named, index, item=self.item)


class Destination(msgspec.Struct, frozen=True):
    """One static destination, compiled.

    ``routes`` are the tracks that are named somewhere, ``calls`` the pages (``page:NAME``), screens and ``identify``.
    ``reads_message`` tells that some path needs the generic event; ``lets_all_pass`` that nothing is switched off, so
    that no event need be looked at for it.
    """

    config: DestinationConfig
    routes: dict[str, EventType]
    calls: dict[str, EventType]
    page_load: Plan
    conversion: Plan
    order: Plan
    line: Plan
    item: Plan
    clicks: ClickRules
    reads_message: bool
    lets_all_pass: bool

    @property
    def program(self) -> str:
        """Account and campaign, as the sessions write them."""
        return self.clicks.program

    def for_event(self, message: Mapping[str, Any] | None) -> "Destination":
        """Itself: the same for every event."""
        del message
        return self


class AnyDestination(Protocol):
    """What ``transform`` needs: a destination for an event."""

    @property
    def reads_message(self) -> bool:
        """Whether ``for_event`` or the tables need the generically decoded event."""

    @property
    def program(self) -> str | None:
        """Account and campaign, as the sessions write them; None where an event decides about them."""

    def for_event(self, message: Mapping[str, Any] | None) -> Destination:
        """The destination for this event; raises :class:`ConfigurationError` when its values do not fit."""


class DynamicDestination:
    """A destination some of whose values come from each event: ``{{ event.path || "default" }}``.

    The event itself is left as it is (RudderStack's built-in removes the property it read).
    """

    reads_message = True

    def __init__(self, config: Mapping[str, Any], templates: Sequence[str], schema: Iterable[ConfigKey]) -> None:
        self._config = config
        self._templates = tuple(dict.fromkeys(templates))
        _check_templates(self._templates)
        self._schema = tuple(schema)
        self._compiled = lru_cache(maxsize=RESOLVED_TEMPLATES)(self._compile)

    @property
    def program(self) -> str | None:
        """See :class:`AnyDestination`."""
        named = [self._config.get(key) for key in ("accountSID", "campaignId")]
        plain = [str(one) for one in named if isinstance(one, str | int) and not find_templates({"": one})]
        return SEPARATOR.join(plain) if len(plain) == len(named) else None

    def for_event(self, message: Mapping[str, Any] | None) -> Destination:
        """Resolve the templates against the event and compile, or reuse, the destination they give."""
        return self._compiled(tuple(_resolve(template, message or {}) for template in self._templates))

    def _compile(self, values: tuple[str, ...]) -> Destination:
        filled = fill_templates(self._config, dict(zip(self._templates, values, strict=True)))
        return _compile_config(parse_configuration(filled, self._schema))


def compile_destination(
    config: Mapping[str, Any], schema: Iterable[ConfigKey], variables: Mapping[str, str] | None = None
) -> Destination | DynamicDestination:
    """Make a destination from what the operator wrote; raises :class:`ConfigurationError` with every mistake.

    ``variables`` are those that ``env.NAME`` values may use. Expensive (about a millisecond): do it once a revision.
    """
    filled = fill_variables(config, variables or {})
    templates = find_templates(filled)
    if templates:
        return DynamicDestination(filled, templates, schema)
    return _compile_config(parse_configuration(filled, schema))


def _check_templates(templates: Iterable[str]) -> None:
    for template in templates:
        match = TEMPLATE.fullmatch(template.strip())
        try:
            parse_path(match["path"] if match else "")
        except PathError as error:
            raise ConfigurationError([Problem(template, str(error))]) from error


def _resolve(template: str, message: Mapping[str, Any]) -> str:
    match = TEMPLATE.fullmatch(template.strip())
    assert match is not None  # noqa: S101 - find_templates matched it
    found = as_text(dig(message, parse_path(match["path"])))
    return found if found is not None else (match["default"] or "").strip("\"'")


def _check_sources(config: DestinationConfig, constants: Mapping[str, str]) -> Iterator[Problem]:
    """Refuse sources that do not exist: their names become part of generated code, so nothing else may."""
    rows = (*config.rudder_to_impact_property, *config.products_mapping)
    listed = [(f"parameterSources.{name}", path) for name, paths in config.parameter_sources.items() for path in paths]
    listed += [("mapping", row.source) for row in rows]
    known = {*(f"@{name}" for name in NAMED), *(f"destination.{name}" for name in constants)}
    for where, path in listed:
        if path.startswith(NAMED_SOURCE) and path not in known:
            yield Problem(where, f"{path!r} is no source; see the reference of parameters")


def _check_parameters(config: DestinationConfig) -> Iterator[Problem]:
    """Refuse parameters that impact.com does not have, unless the operator says that they are his own."""
    listed = [("rudderToImpactProperty", row.parameter) for row in config.rudder_to_impact_property]
    listed += [("productsMapping", fields.numbered(row.parameter)) for row in config.products_mapping]
    listed += [
        (f"parameterSources.{name}", fields.numbered(name) if name.startswith("Item") else name)
        for name in config.parameter_sources
    ]
    for where, name in listed:
        own = {name, name.replace("{i}", "")} & set(config.custom_parameters)
        if not own and not fields.is_known(name):
            meant = "".join(f"; did you mean {one}?" for one in fields.suggestions(name))
            yield Problem(where, f"impact.com has no parameter {name}{meant or ', unless customParameters names it'}")


def _check_constants(rows: Iterable[Compiled]) -> Iterator[Problem]:
    """Refuse constants that could never be sent."""
    for row in rows:
        for source in row.sources:
            if source.constant is None or constant_of(source.path) is None:
                continue
            try:
                row.rule(source.constant)
            except UnusableValueError as error:
                yield Problem(row.row.param, f"the constant {source.path} {error.detail}")


def _refuse(problems: Iterable[Problem]) -> None:
    found = [*problems]
    if found:
        raise ConfigurationError(found)


def _compile_config(config: DestinationConfig) -> Destination:
    constants = {
        "campaignId": config.campaign_id,
        "defaultCurrency": config.default_currency,
        "defaultCategory": config.default_category,
    }
    apps = config.impact_app_id
    if isinstance(apps, str):
        # One for every platform is known without looking at the event.
        constants |= {"impactAppId": apps, "@property_id": apps}
    _refuse((*_check_sources(config, constants), *_check_parameters(config)))
    compiler = _Compiler(config, constants)
    named: Named = {
        "click_id": click_id_finder(config.click_id_parameters).carried,
        "property_id": app_id_finder({} if isinstance(apps, str) else apps),
    }
    plans = _plans(compiler, config, named)
    places = [source.path for row in plans["page_load"].rows if row.row.param == "ClickId" for source in row.sources]
    wide = any(row.wide for plan in plans.values() for row in plan.rows)
    gated = config.consent_gate != "off"
    enabled = config.enable_page_events and config.enable_screen_events and config.enable_identify_events
    routes = _routes(config)
    return Destination(
        config,
        {name: entry for name, entry in routes.items() if not _is_call(name)},
        {name: entry for name, entry in routes.items() if _is_call(name)},
        clicks=compile_rules(config, by_form="@click_id" in places, has_click_id=bool(places)),
        reads_message=wide or gated,
        lets_all_pass=enabled and not gated and config.unmapped_track == "page_load",
        **plans,
    )


def _plans(compiler: "_Compiler", config: DestinationConfig, named: Named) -> dict[str, Plan]:
    """Every table, with the operator's rows where they belong."""
    mapped = config.rudder_to_impact_property
    products = [
        msgspec.structs.replace(one, parameter=fields.numbered(one.parameter)) for one in config.products_mapping
    ]
    order, page = fields.ORDER.names(), fields.PAGE_LOAD.names()
    line = {row.param + "{i}" for row in fields.LINE.rows}
    rows = {
        "page_load": compiler.rows(fields.PAGE_LOAD.rows, [one for one in mapped if one.parameter in page]),
        "conversion": compiler.rows(fields.CONVERSION.rows, [one for one in mapped if one.parameter not in order]),
        "order": compiler.rows(fields.ORDER.rows, [one for one in mapped if one.parameter in order]),
        "line": compiler.rows(
            fields.LINE.rows, [_unnumbered(one) for one in products if one.parameter in line], item=True
        ),
        "item": compiler.rows(_item_rows(), [one for one in products if one.parameter not in line], item=True),
    }
    _refuse(problem for one in rows.values() for problem in _check_constants(one))
    return {
        name: Plan(tuple(one), compile_fill(one, named, item=name in ITEM_TABLES), named, name in ITEM_TABLES)
        for name, one in rows.items()
    }


ITEM_TABLES: Final = ("line", "item")
"""Tables whose paths start at one product."""


class _Compiler:
    """Resolves rows for one destination: the operator's sources and mappings before the table's own."""

    def __init__(self, config: DestinationConfig, constants: Mapping[str, str]) -> None:
        self._config = config
        self._constants = constants

    def rows(self, rows: Sequence[MappingRow], mapping: Sequence[Mapped], *, item: bool = False) -> list[Compiled]:
        mapped: dict[str, list[str]] = {}
        for one in mapping:
            mapped.setdefault(one.parameter, []).append(one.source)
        compiled = [self._row(row, mapped.pop(row.param, []), item) for row in rows]
        for param, paths in mapped.items():
            compiled.append(self._row(fields.custom_row(param, paths[0]), paths[1:], item))
        return compiled

    def _row(self, row: MappingRow, before: Sequence[str], item: bool) -> Compiled:
        own = self._own_paths(row)
        paths = row.sources if own is None else own
        sources = [source_of(path, self._constants, item=item) for path in before]
        for path in paths:
            if path == "destination.consentPaths":
                sources += map(consent_source_of, self._config.consent_paths)
            else:
                sources.append(source_of(path, self._constants, item=item))
        if row.when == "device" and (before or own):
            row = msgspec.structs.replace(row, when="always")
        return Compiled(row, tuple(sources), rule_of(row, self._config))

    def _own_paths(self, row: MappingRow) -> Sequence[str] | None:
        """The paths that the operator puts in the place of the table's."""
        if row.param == "products" and self._config.items_path:
            return [self._config.items_path]
        return self._config.parameter_sources.get(row.param.replace("{i}", ""))


def _item_rows() -> list[MappingRow]:
    return [msgspec.structs.replace(row, param=row.param + "{i}") for row in fields.ITEM.rows]


def _unnumbered(mapped: Mapped) -> Mapped:
    return msgspec.structs.replace(mapped, parameter=mapped.parameter.removesuffix("{i}"))


def _routes(config: DestinationConfig) -> dict[str, EventType]:
    """Event name, case-folded, to what it is; later lines win over earlier ones, so an action wins over an install."""
    routes: dict[str, EventType] = {}
    for names, kind in (
        ((APPLICATION_INSTALLED,), "install"),
        (config.install_event_names, "install"),
        ((ORDER_COMPLETED,), "action"),
        (config.action_event_names, "action"),
    ):
        routes.update({name.casefold(): EventType(name, kind) for name in names})  # type: ignore[arg-type]
    routes.update({entry.name.casefold(): entry for entry in config.event_types})
    # Whatever the order is called, it is the one that the operator configured under its usual name.
    completed = routes[ORDER_COMPLETED.casefold()]
    routes.update(dict.fromkeys(ORDER_ALIASES - routes.keys(), completed))
    return {name: _with_identifier(entry, config.event_type_id) for name, entry in routes.items()}


def _is_call(name: str) -> bool:
    return name.startswith((PAGE, SCREEN)) or name == "identify"


def _with_identifier(entry: EventType, event_type_id: str) -> EventType:
    """Exactly one identifier: the entry's own; for actions the destination's ``eventTypeId``; else the name as code."""
    if entry.kind == "page_load" or entry.id or entry.code:
        return entry
    if event_type_id and entry.kind == "action":
        return msgspec.structs.replace(entry, id=event_type_id)
    return msgspec.structs.replace(entry, code=entry.name.removeprefix(PAGE).removeprefix(SCREEN))


PAGE: Final = "page:"
SCREEN: Final = "screen:"
"""How ``eventTypes`` names the pages and screens of an app or site."""


def consent_of(destination: Destination, message: Mapping[str, Any]) -> str | None:
    """``true``, ``false`` or None (unknown), from the first configured path that tells."""
    for entry in destination.config.consent_paths:
        place = parse_consent_path(entry)
        value = dig(message, parse_path(place.path))
        found = truth(value if place.id is None else listed_consent(value, place.id, place.denies))
        if found is not None:
            return found
    return None
