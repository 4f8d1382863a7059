"""A large table in memory that never stops the event loop for long: sharded, bounded, expiring by generation.

One dict of five million entries stalls for hundreds of milliseconds when it grows; 256 of them for one. Entries live in
the dict of the generation in which they were last written; a generation that has run out is taken away as a whole and
freed bit by bit.
"""

from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Final

SHARDS: Final = 256
SHARD_SIZE: Final = 4096
"""Entries for which a further shard pays; a small table has one, and then evicts in exact order."""

GENERATIONS: Final = 4
"""Into how many generations a retention is divided: an entry lives at least that long and at most a quarter longer."""

FREED_AT_ONCE: Final = 1000


class GenerationTable:
    """``bytes`` to ``bytes``; keys must be digests, whose first byte chooses the shard."""

    def __init__(self, capacity: int) -> None:
        count = 1
        while count < SHARDS and count * SHARD_SIZE < capacity:
            count *= 2
        self.capacity = capacity
        self.evicted = 0
        self._mask = count - 1
        self._shards: list[list[dict[bytes, bytes]]] = [[{}] for _ in range(count)]
        self._generations = [0]
        self._expired: list[dict[bytes, bytes]] = []
        self._size = 0
        self._next_victim = 0

    def __len__(self) -> int:
        return self._size

    def get(self, key: bytes) -> bytes | None:
        """The value last put under the key; None when there is none or it expired."""
        for held in self._shards[key[0] & self._mask]:
            value = held.get(key)
            if value is not None:
                return value
        return None

    def put(self, key: bytes, value: bytes) -> None:
        """Write the value into the present generation; at capacity the entry written longest ago goes."""
        young = (shard := self._shards[key[0] & self._mask])[0]
        # Deleting first moves the key to the end of its dict: the order of a dict is the order of eviction.
        if young.pop(key, None) is None and all(held.pop(key, None) is None for held in shard[1:]):
            if self._size >= self.capacity:
                self._evict(shard)
            self._size += 1
        young[key] = value

    def add(self, key: bytes, value: bytes) -> bytes | None:
        """Write the value under a key that has none; else leave it, and return what it has."""
        shard = self._shards[key[0] & self._mask]
        for held in shard:
            found = held.get(key)
            if found is not None:
                return found
        if self._size >= self.capacity:
            self._evict(shard)
        self._size += 1
        shard[0][key] = value
        return None

    def pop(self, key: bytes) -> bool:
        """Remove the key; tells whether it was there."""
        found = any(held.pop(key, None) is not None for held in self._shards[key[0] & self._mask])
        self._size -= found
        return found

    def stretches(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """All entries, a shard at a time; what is written meanwhile may be missing."""
        for shard in self._shards:
            for held in list(shard):
                yield list(held.items())

    def generations(self) -> Iterator[tuple[int, list[tuple[bytes, bytes]]]]:
        """The entries of each generation, the earliest first, as :meth:`load` takes them."""
        for place in reversed(range(len(self._generations))):
            yield self._generations[place], [entry for shard in self._shards for entry in shard[place].items()]

    def load(self, generation: int, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Put entries of an earlier generation back; generations must be loaded in order, the earliest first."""
        self.advance(generation)
        for key, value in entries:
            self.put(key, value)

    def advance(self, generation: int) -> bool:
        """Begin the generation if it is later than the present one, and let go of those that have run out."""
        if generation <= self._generations[0]:
            return False
        self._generations.insert(0, generation)
        kept = sum(1 for one in self._generations if one >= generation - GENERATIONS)
        del self._generations[kept:]
        for shard in self._shards:
            shard.insert(0, {})
            for held in shard[kept:]:
                self._size -= len(held)
                self._expired.append(held)
            del shard[kept:]
        return True

    def free(self, seconds: float) -> None:
        """Free memory of expired generations for about so long: letting go of a whole dict at once takes longer."""
        deadline = perf_counter() + seconds
        while self._expired and perf_counter() < deadline:
            held = self._expired[-1]
            for _ in range(min(FREED_AT_ONCE, len(held))):
                held.popitem()
            if not held:
                self._expired.pop()

    def _evict(self, shard: list[dict[bytes, bytes]]) -> None:
        """Drop the oldest entry of the shard, or of the next one that has any."""
        for _ in range(len(self._shards) + 1):
            for held in reversed(shard):
                oldest = next(iter(held), None)
                if oldest is not None:
                    del held[oldest]
                    self._size -= 1
                    self.evicted += 1
                    return
            self._next_victim = (self._next_victim + 1) & self._mask
            shard = self._shards[self._next_victim]
