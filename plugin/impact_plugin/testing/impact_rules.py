"""What impact.com documents about page loads and conversions, as pure checks.

``FakeImpact`` answers by these rules, and your tests may call the functions directly.

Sources (read in 2026, API version 14):

- https://integrations.impact.com/impact-brand/reference/create-a-pageload
- https://integrations.impact.com/impact-brand/reference/submit-a-conversion
- https://integrations.impact.com/impact-brand/reference/the-conversion-object
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final, Literal

import msgspec

from impact_plugin.testing.impact_parameters import (
    ALIASES,
    ATTRIBUTION_KEYS,
    CONVERSION_PARAMETERS,
    EVENT_TYPES,
    ITEM_FAMILIES,
    ITEM_PARAMETERS,
    LEGACY,
    PAGE_LOAD_PARAMETERS,
    VISITOR_KEYS,
    Parameter,
    canonical,
)
from impact_plugin.testing.impact_values import find_clear_email, value_refusal

_EXCLUSIVE: Final = (
    ("OrderSubTotalPostDiscount", "OrderDiscount"),
    ("MediaId", "MediaPartnerId"),
    *ALIASES.items(),
)

_ITEM_REQUIRED: Final = ("ItemSku", "ItemCategory", "ItemQuantity")

_ITEM_PRICES: Final = ("ItemPrice", "ItemSubTotal")

_NOT_WITH_ITEMS: Final = ("OrderSubTotalPostDiscount", "Amount")

_ITEM: Final = re.compile(r"(Item[A-Za-z]+)(0|[1-9][0-9]{0,4})(?:_([1-9][0-9]?))?")


class RuleViolation(msgspec.Struct, frozen=True):
    """An entry of impact.com's ``errors`` or ``warnings``; its message never repeats a value, which may be personal."""

    field: str
    level: Literal["ERROR", "WARNING"]
    message: str


class Report(msgspec.Struct, frozen=True):
    """The verdict on a request: HTTP 400 if there are errors, otherwise HTTP 200."""

    errors: tuple[RuleViolation, ...] = ()
    warnings: tuple[RuleViolation, ...] = ()


def check_conversion(fields: Mapping[str, str]) -> Report:
    """Check the decoded parameters of a conversion against the documented rules.

    https://integrations.impact.com/impact-brand/reference/submit-a-conversion
    """
    problems = [*_check_values(fields, _conversion_parameter)]
    problems += _check_required(fields, ("CampaignId", "EventDate", "OrderId"))
    named = [name for name in EVENT_TYPES if name in fields]
    if len(named) != 1:
        problems.append(
            violation(named[-1] if named else EVENT_TYPES[0], f"exactly one of {', '.join(EVENT_TYPES)} is required")
        )
    if ATTRIBUTION_KEYS.isdisjoint(fields):
        problems.append(violation("ClickId", f"at least one of {', '.join(sorted(ATTRIBUTION_KEYS))} is required"))
    problems += [
        violation(second, f"not together with {first}")
        for first, second in _EXCLUSIVE
        if first in fields and second in fields
    ]
    problems += _check_items(fields)
    return Report(tuple(problems))


def check_page_load(fields: Mapping[str, str], *, strict: bool = True) -> Report:
    """Check the decoded parameters of a page load against the documented rules.

    impact.com accepts a ``CustomerEmail`` in clear here; with ``strict`` it is an error, because impact-plugin always
    hashes it. https://integrations.impact.com/impact-brand/reference/create-a-pageload
    """
    lenient = not strict and find_clear_email(fields.get("CustomerEmail", ""))
    judged = {name: value for name, value in fields.items() if name != "CustomerEmail"} if lenient else fields
    problems = [*_check_values(judged, PAGE_LOAD_PARAMETERS.get)]
    problems += _check_required(fields, ("CampaignId", "EventDate"))
    if VISITOR_KEYS.isdisjoint(fields):
        problems.append(violation("CustomProfileId", f"required, or else one of {', '.join(sorted(VISITOR_KEYS))}"))
    return Report(tuple(problems), tuple(_page_load_warnings(fields)))


def violation(field: str, message: str) -> RuleViolation:
    """Return an error about a field."""
    return RuleViolation(field, "ERROR", message)


def _check_values(fields: Mapping[str, str], known: Callable[[str], Parameter | None]) -> Iterator[RuleViolation]:
    for name, value in fields.items():
        parameter = known(name)
        if parameter is None:
            yield violation(name, "is not a parameter of this endpoint")
        elif message := value_refusal(value, parameter):
            yield violation(name, message)


def _check_required(fields: Mapping[str, str], names: Iterable[str]) -> list[RuleViolation]:
    return [violation(name, "is required") for name in names if canonical(fields, name) is None]


def _page_load_warnings(fields: Mapping[str, str]) -> Iterator[RuleViolation]:
    if "PageUrl" not in fields:
        yield RuleViolation("PageUrl", "WARNING", "missing; only an app that was opened directly has none")
    if len(fields.get("CustomerEmail", "")) == 64:
        yield RuleViolation("CustomerEmail", "WARNING", "only SHA-1 is documented for page loads")
    for name in fields:
        if name in LEGACY:
            yield RuleViolation(name, "WARNING", "is not a parameter of version 14; ignored")


class _ItemPart(msgspec.Struct, frozen=True):
    base: str
    index: int
    parameter: Parameter


# Every conversion has the same names; the bound keeps hostile names from filling the memory.
@lru_cache(maxsize=16_384)
def _item_part(name: str) -> _ItemPart | None:
    found = _ITEM.fullmatch(name)
    if found is None:
        return None
    base, index, number = found[1], int(found[2]), found[3]
    if number is None:
        parameter = ITEM_PARAMETERS.get(base)
        return _ItemPart(base, index, parameter) if parameter else None
    last, parameter = ITEM_FAMILIES.get(base, (0, None))
    return _ItemPart(base, index, parameter) if parameter and int(number) <= last else None


def _conversion_parameter(name: str) -> Parameter | None:
    parameter = CONVERSION_PARAMETERS.get(name)
    if parameter is None and name.startswith("Item") and (part := _item_part(name)):
        return part.parameter
    return parameter


def _check_items(fields: Mapping[str, str]) -> Iterator[RuleViolation]:
    """Check the items of an order: https://integrations.impact.com/impact-brand/docs/item-level-data ."""
    items: dict[int, set[str]] = {}
    for name in fields:
        if name.startswith("Item") and (part := _item_part(name)):
            items.setdefault(part.index, set()).add(part.base)
    if not items:
        return
    missing = next((index for index in range(1, len(items) + 1) if index not in items), None)
    if missing is not None:
        yield violation(f"ItemSku{missing}", "items are numbered from 1 without gaps")
    for name in _NOT_WITH_ITEMS:
        if name in fields:
            yield violation(name, "not together with items")
    for index, bases in items.items():
        yield from (
            violation(f"{base}{index}", "is required for every item") for base in _ITEM_REQUIRED if base not in bases
        )
        if len(bases.intersection(_ITEM_PRICES)) != 1:
            yield violation(f"ItemPrice{index}", f"exactly one of ItemPrice{index}, ItemSubTotal{index} is required")
