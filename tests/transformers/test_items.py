"""Lines and the amount they must sum to."""

from decimal import Decimal
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from impact_transformers.amounts import Reading
from impact_transformers.currencies import cent_of
from impact_transformers.items import Items, share
from impact_transformers.order import Order, read_order

currencies: Final = st.sampled_from(["EUR", "JPY", "KWD", None])
prices: Final = st.decimals(0, 10**6, places=4, allow_nan=False) | st.decimals(0, 100, places=2, allow_nan=False)
lines: Final = st.lists(
    st.fixed_dictionaries(
        {"ItemPrice": prices},
        optional={
            "ItemQuantity": st.integers(1, 9).map(Decimal) | st.decimals(-3, 3, places=3, allow_nan=False),
            "ItemTotalDiscount": prices,
        },
    ),
    min_size=1,
    max_size=12,
)


def read(products: list[dict[str, Decimal]], discount: Decimal | None, currency: str | None) -> Order:
    """Make an order of these products."""
    as_read = [
        {name: value if name == "ItemQuantity" else Reading(value) for name, value in one.items()} for one in products
    ]
    return read_order({} if discount is None else {"OrderDiscount": Reading(discount)}, as_read, currency)


def summed(items: Items) -> Decimal:
    """Add up what impact.com adds up."""
    pieces = [item.money * (item.line.pieces if item.sent == "price" else 1) for item in items.items]
    return sum(pieces, Decimal(0)) - items.discount


@given(lines, st.none() | prices, st.decimals(0, 10**6, places=2, allow_nan=False), currencies, st.booleans())
def test_the_lines_always_sum_to_the_amount(
    products: list[dict[str, Decimal]], discount: Decimal | None, amount: Decimal, currency: str | None, own: bool
) -> None:
    """To the cent, whatever the amount; no line is negative or finer than a cent."""
    order, cent = read(products, discount, currency), cent_of(currency)
    if not order.items:
        return
    wanted = order.net_lines if own and order.net_lines is not None and order.net_lines >= 0 else amount
    amount = wanted.quantize(cent)
    items = share(order, amount, cent)

    assert amount == summed(items)
    assert [] == [item for item in items.items if item.money < 0 or item.money % cent]
    assert items.discount >= 0


def test_a_share_differs_from_the_exact_one_by_less_than_a_cent() -> None:
    """The largest remainder gives each line its exact share, up or down to a cent."""
    products = [{"ItemPrice": Decimal(price)} for price in ("1", "2", "3", "4", "7.77")]
    items = share(read(products, None, "EUR"), Decimal("10.01"), Decimal("0.01"))
    exact = [one["ItemPrice"] * Decimal("10.01") / Decimal("17.77") for one in products]

    assert [] == [
        (item, one) for item, one in zip(items.items, exact, strict=True) if abs(item.money - one) >= Decimal("0.01")
    ]


def test_a_discount_of_too_many_digits_is_shared() -> None:
    """OrderDiscount has at most twelve digits; the lines take a larger one in."""
    order = read([{"ItemPrice": Decimal(2 * 10**12)}], Decimal(10**12), "EUR")

    assert share(order, Decimal(10**12), Decimal("0.01")).discount == 0
