"""A destination ready for work: its configuration resolved into routes and compiled mapping tables, once."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

import msgspec

from impact_transformers import fields
from impact_transformers.clicks import SEPARATOR, ClickRules, compile_rules
from impact_transformers.compile import Compiled, Fill, compile_fill, source_of
from impact_transformers.configuration import (
    TEMPLATE,
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
from impact_transformers.fields import MappingRow, rule_of
from impact_transformers.normalize import as_text, truth
from impact_transformers.paths import NAMED_SOURCE, PathError, dig, parse_path
from impact_transformers.sources import NAMED, FindClickId, click_id_finder

ORDER_COMPLETED: Final = "Order Completed"
APPLICATION_INSTALLED: Final = "Application Installed"
RESOLVED_TEMPLATES: Final = 1024
"""How many resolutions of one dynamic configuration are kept compiled; the least recently used goes first."""


class Plan(msgspec.Struct, frozen=True):
    """The compiled tables of one kind of request.

    ``steps`` are the rows of ``fill``; the two others follow for conversions with and without items.
    """

    rows: tuple[Compiled, ...]
    fill: Fill


class Destination(msgspec.Struct, frozen=True):
    """One static destination, compiled.

    ``reads_message`` tells that some path needs the generic event; ``lets_all_pass`` that nothing is switched off, so
    that no event need be looked at for it.
    """

    config: DestinationConfig
    routes: dict[str, EventType]
    page_load: Plan
    conversion: Plan
    with_items: Plan
    without_items: Plan
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


def _check_sources(config: DestinationConfig, constants: Mapping[str, str]) -> None:
    """Refuse sources that do not exist: their names become part of generated code, so nothing else may."""
    rows = (*config.rudder_to_impact_property, *config.products_mapping)
    listed = [(f"parameterSources.{name}", path) for name, paths in config.parameter_sources.items() for path in paths]
    listed += [("mapping", row.source) for row in rows]
    known = {*(f"@{name}" for name in NAMED), *(f"destination.{name}" for name in constants)}
    problems = [
        Problem(where, f"{path!r} is no source; see the reference of parameters")
        for where, path in listed
        if path.startswith(NAMED_SOURCE) and path not in known
    ]
    if problems:
        raise ConfigurationError(problems)


def _compile_config(config: DestinationConfig) -> Destination:
    constants = {
        "campaignId": config.campaign_id,
        "impactAppId": config.impact_app_id,
        "defaultCurrency": config.default_currency,
        "defaultCategory": config.default_category,
    }
    _check_sources(config, constants)
    compiler = _Compiler(config, constants)
    find = click_id_finder(config.click_id_parameters)
    order_rows = compiler.rows(fields.CONVERSION.rows, config.rudder_to_impact_property)
    page_names = fields.PAGE_LOAD.names()
    on_pages = tuple(mapped for mapped in config.rudder_to_impact_property if mapped.parameter in page_names)
    plans = {
        "page_load": _plan(compiler.rows(fields.PAGE_LOAD.rows, on_pages), find),
        "conversion": _plan([row for row in order_rows if row.row.when in ("always", "device")], find),
        "with_items": _plan([row for row in order_rows if row.row.when == "items"], find),
        "without_items": _plan([row for row in order_rows if row.row.when == "no_items"], find),
        "item": _plan(compiler.rows(_item_rows(), _item_mapping(config.products_mapping), item=True), find, item=True),
    }
    places = [source.path for row in plans["page_load"].rows if row.row.param == "ClickId" for source in row.sources]
    wide = any(row.wide for plan in plans.values() for row in plan.rows)
    gated = config.consent_gate != "off"
    enabled = config.enable_page_events and config.enable_screen_events and config.enable_identify_events
    return Destination(
        config,
        _routes(config),
        clicks=compile_rules(config, by_form="@click_id" in places, has_click_id=bool(places)),
        reads_message=wide or gated,
        lets_all_pass=enabled and not gated and config.unmapped_track == "page_load",
        **plans,
    )


def _plan(rows: Sequence[Compiled], find: FindClickId, *, item: bool = False) -> Plan:
    return Plan(tuple(rows), compile_fill(rows, find, item=item))


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
        own = self._config.parameter_sources.get(row.param.replace("{i}", ""))
        paths = [path for path in row.sources if path != "destination.consentPaths"] if own is None else own
        if row.sources == ("destination.consentPaths",) and own is None:
            paths = self._config.consent_paths
        sources = tuple(source_of(path, self._constants, item=item) for path in (*before, *paths))
        if row.when == "device" and (before or own):
            row = msgspec.structs.replace(row, when="always")
        return Compiled(row, sources, rule_of(row, hash_emails=self._config.email_as_customer_id == "hash"))


def _item_rows() -> list[MappingRow]:
    return [msgspec.structs.replace(row, param=row.param + "{i}") for row in fields.ITEM.rows]


def _item_mapping(mapping: Sequence[Mapped]) -> list[Mapped]:
    """RudderStack's form names ``ItemText`` and appends the number; ours may say where it goes: ``ItemText{i}_1``."""
    return [
        one if "{i}" in one.parameter else msgspec.structs.replace(one, parameter=one.parameter + "{i}")
        for one in mapping
    ]


def _routes(config: DestinationConfig) -> dict[str, EventType]:
    """Event name, case-folded, to what it is; later lines win over earlier ones, so an action wins over an install."""
    routes = {}
    for names, kind in (
        ((APPLICATION_INSTALLED,), "install"),
        (config.install_event_names, "install"),
        ((ORDER_COMPLETED,), "action"),
        (config.action_event_names, "action"),
    ):
        routes.update({name.casefold(): EventType(name, kind) for name in names})  # type: ignore[arg-type]
    routes.update({entry.name.casefold(): entry for entry in config.event_types})
    return {name: _with_identifier(entry, config.event_type_id) for name, entry in routes.items()}


def _with_identifier(entry: EventType, event_type_id: str) -> EventType:
    """Exactly one identifier: the entry's own, else the destination's ``eventTypeId``, else the name as code."""
    if entry.kind == "page_load" or entry.id or entry.code:
        return entry
    if event_type_id:
        return msgspec.structs.replace(entry, id=event_type_id)
    return msgspec.structs.replace(entry, code=entry.name)


def consent_of(destination: Destination, message: Mapping[str, Any]) -> str | None:
    """``true``, ``false`` or None (unknown), from the first configured path that tells."""
    for path in destination.config.consent_paths:
        found = truth(dig(message, parse_path(path)))
        if found is not None:
            return found
    return None
