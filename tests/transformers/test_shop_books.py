"""Orders from a shop's books, written as shops of many kinds write them: what is booked is what the books say."""

from collections import Counter
from functools import cache
from typing import Final

import pytest

from shop_books import STYLES, Measured, Style, measure

NAMES: Final = [style.name for style in STYLES]
BY_NAME: Final = {style.name: style for style in STYLES}
COUNT: Final = 60


@cache
def by_itself(style: Style) -> Measured:
    """Measure a style without the shop's setting."""
    return measure(style, count=COUNT)


def test_there_are_styles_enough() -> None:
    """At least forty ways to write an order, each with a name of its own."""
    assert len(STYLES) >= 40
    assert [] == [name for name, count in Counter(NAMES).items() if count > 1]


@pytest.mark.parametrize("name", NAMES)
def test_with_the_shops_own_setting_every_order_is_right(name: str) -> None:
    """To the cent, in every style, without a doubt."""
    style = BY_NAME[name]
    found = measure(style, style.setting, COUNT)

    assert [] == found.examples
    assert found.results == {"right": COUNT}


@pytest.mark.parametrize("name", [name for name in NAMES if not BY_NAME[name].unknowable])
def test_without_a_setting_nothing_knowable_is_wrong_in_silence(name: str) -> None:
    """An order that is booked wrong without a notice is one of those that an event cannot tell at all."""
    found = by_itself(BY_NAME[name])

    assert found.results["silently wrong"] == 0, found.examples[:1]


def test_without_a_setting_few_are_wrong_in_silence() -> None:
    """On the average of all styles at most twelve in a hundred."""
    measured = [by_itself(style) for style in STYLES]

    assert sum(one.share("silently wrong") for one in measured) / len(measured) <= 12
    assert sum(one.share("right") + one.share("right, noticed") for one in measured) / len(measured) >= 80
