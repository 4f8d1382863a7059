"""The table in memory: who goes first at capacity, how long an entry lives, and what is freed when."""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import impact_plugin.store.table
from impact_plugin.store.table import FREED_AT_ONCE, GENERATIONS, SHARD_SIZE, GenerationTable
from tests.properties import tried

TRIED = tried(300)


def key(number: int) -> bytes:
    """A digest, as keys must be."""
    return hashlib.blake2b(number.to_bytes(8), digest_size=15).digest()


class Plain:
    """What a table should be: one dict in the order of writing."""

    def __init__(self, capacity: int) -> None:
        self.entries: dict[bytes, tuple[bytes, int]] = {}
        self.capacity = capacity
        self.evicted = 0
        self.generation = 0

    def put(self, one: bytes, value: bytes) -> None:
        """Written anew, it is the youngest."""
        if self.entries.pop(one, None) is None and len(self.entries) >= self.capacity:
            del self.entries[next(iter(self.entries))]
            self.evicted += 1
        self.entries[one] = (value, self.generation)

    def add(self, one: bytes, value: bytes) -> bytes | None:
        """Written only when it is not there."""
        if one in self.entries:
            return self.entries[one][0]
        self.put(one, value)
        return None

    def pop(self, one: bytes) -> bool:
        """Removed, wherever it stands."""
        return self.entries.pop(one, None) is not None

    def get(self, one: bytes) -> bytes | None:
        """Reading makes nothing younger."""
        return self.entries[one][0] if one in self.entries else None

    def advance(self, by: int) -> bool:
        """An entry lives for so many generations after its own."""
        self.generation += by
        for one, (_, born) in list(self.entries.items()):
            if born < self.generation - GENERATIONS:
                del self.entries[one]
        return by > 0


keys = st.integers(0, 7)
steps = st.one_of(
    st.tuples(st.sampled_from(["put", "add"]), keys, st.binary(max_size=2)),
    st.tuples(st.sampled_from(["pop", "get"]), keys),
    st.tuples(st.just("advance"), st.integers(0, 6)),
)


@given(capacity=st.integers(1, 8), history=st.lists(steps, max_size=60))
@TRIED
def test_a_small_table_is_a_dict_in_the_order_of_writing(capacity: int, history: list[tuple[Any, ...]]) -> None:
    """With one shard everything is exact: values, size, the order of eviction, its count, and expiry."""
    table, plain = GenerationTable(capacity), Plain(capacity)
    for name, one, *value in history:
        if name == "advance":
            assert plain.advance(one) == table.advance(plain.generation)
        else:
            assert getattr(plain, name)(key(one), *value) == getattr(table, name)(key(one), *value)
        assert (len(plain.entries), plain.evicted) == (len(table), table.evicted)
        assert [plain.get(key(number)) for number in range(8)] == [table.get(key(number)) for number in range(8)]
        table.free(0)


def test_the_entry_written_longest_ago_goes_first() -> None:
    """Writing again makes an entry young, reading or adding does not, and the generation makes no difference."""
    table = GenerationTable(3)
    for number in (1, 2, 3):
        table.put(key(number), b"")
    table.advance(1)
    table.put(key(1), b"again")
    table.get(key(2))
    table.add(key(2), b"left alone")
    table.put(key(4), b"")

    assert [b"again", None, b"", b""] == [table.get(key(number)) for number in (1, 2, 3, 4)]
    assert (3, 1) == (len(table), table.evicted)


@pytest.mark.parametrize("capacity", [SHARD_SIZE, SHARD_SIZE + 1, 5 * SHARD_SIZE])
def test_a_large_table_never_holds_more_than_its_capacity(capacity: int) -> None:
    """Nothing goes before it is full; then each newcomer costs one, and the newest are all there."""
    table = GenerationTable(capacity)
    for number in range(capacity):
        table.put(key(number), b"v")
    before = table.evicted
    for number in range(capacity, capacity + 3000):
        table.put(key(number), b"v")

        assert capacity == len(table)
    young = [table.get(key(number)) for number in range(capacity // 2, capacity + 3000)] if capacity > 6000 else []

    assert (0, 3000) == (before, table.evicted)
    assert set(young) <= {b"v"}
    assert capacity == sum(table.get(key(number)) is not None for number in range(capacity + 3000))


def test_a_shard_without_entries_makes_another_one_give_way() -> None:
    """Digests are spread evenly, but the bound does not rest on it."""
    table = GenerationTable(2 * SHARD_SIZE)
    even = [bytes([0]) + number.to_bytes(14) for number in range(2 * SHARD_SIZE)]
    odd = [bytes([1]) + number.to_bytes(14) for number in range(100)]
    for one in [*even, *odd]:
        table.put(one, b"v")

    assert (2 * SHARD_SIZE, 100) == (len(table), table.evicted)
    # The first of the odd ones found nothing of its kind; each later one pushed out its forerunner or an even one.
    assert table.get(odd[-1]) == b"v"
    assert table.get(even[0]) is None
    assert table.get(even[-1]) == b"v"


@pytest.mark.parametrize("born", [0, 7])
def test_an_entry_lives_at_least_its_generations(born: int) -> None:
    """Written in one generation, it is there until as many others have begun and ended; then it is gone at once."""
    table = GenerationTable(10)
    table.advance(born)
    table.put(key(1), b"v")
    alive = []
    for later in range(1, GENERATIONS + 2):
        table.advance(born + later)
        alive.append(table.get(key(1)))

    assert [b"v"] * GENERATIONS + [None] == alive
    assert 0 == len(table)
    assert 0 == table.evicted


def test_writing_again_prolongs_and_adding_does_not() -> None:
    """An answer keeps the age it was given at; a claim that is seen lives on."""
    table = GenerationTable(10)
    for name in (1, 2):
        table.put(key(name), b"v")
    table.advance(GENERATIONS)
    table.put(key(1), b"v")
    table.add(key(2), b"v")
    table.advance(GENERATIONS + 1)

    assert [b"v", None] == [table.get(key(1)), table.get(key(2))]


def test_a_clock_that_goes_back_ends_nothing() -> None:
    """An earlier generation than the present one is ignored."""
    table = GenerationTable(10)
    table.advance(5)
    table.put(key(1), b"v")

    assert not table.advance(4)
    assert not table.advance(5)
    assert table.get(key(1)) == b"v"


def test_a_long_sleep_ends_all_generations_at_once() -> None:
    """A process that was stopped for weeks finds its memory empty, not odd."""
    table = GenerationTable(10)
    for generation in range(GENERATIONS + 1):
        table.advance(generation)
        table.put(key(generation), b"v")
    held = len(table)
    table.advance(1000)
    table.put(key(9), b"v")

    assert GENERATIONS + 1 == held
    assert 1 == len(table)


def test_expired_entries_are_freed_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are out of sight at once, and their memory goes in steps as long as there is time."""

    def ticks() -> Iterator[float]:
        yield from range(1000)

    clock = ticks()
    monkeypatch.setattr(impact_plugin.store.table, "perf_counter", lambda: next(clock))
    table = GenerationTable(3 * FREED_AT_ONCE)
    for number in range(3 * FREED_AT_ONCE):
        table.put(key(number), b"v")
    table.advance(GENERATIONS + 1)
    hidden = len(table)
    # One look at the clock for the deadline, then one before each step.
    held = []
    for seconds in (0, 2, 100):
        table.free(seconds)
        held.append(sum(map(len, table._expired)))

    assert 0 == hidden
    assert [3 * FREED_AT_ONCE, 2 * FREED_AT_ONCE, 0] == held
    assert [] == table._expired


def test_loading_keeps_the_generations_and_the_last_value() -> None:
    """What was written twice has its last value; what has run out by now is not there."""
    table = GenerationTable(10)
    table.load(10, [(key(1), b"old"), (key(2), b"old")])
    table.load(12, [(key(1), b"new"), (key(3), b"v")])
    table.advance(10 + GENERATIONS + 1)

    assert [b"new", None, b"v"] == [table.get(key(number)) for number in (1, 2, 3)]
    assert 2 == len(table)


def test_loading_more_than_there_is_room_for_keeps_the_newest() -> None:
    """A lowered capacity takes effect at the start."""
    table = GenerationTable(2)
    table.load(1, [(key(number), b"v") for number in range(5)])

    assert [None, None, None, b"v", b"v"] == [table.get(key(number)) for number in range(5)]


def test_removing_makes_room() -> None:
    """Forgetting is no eviction, and an empty value is a value."""
    table = GenerationTable(1)
    table.put(key(1), b"")

    assert table.pop(key(1))
    assert not table.pop(key(1))
    table.put(key(2), b"v")
    assert (1, 0) == (len(table), table.evicted)
