"""Queries to the session state as the service makes them: digests of 15 bytes, times of one day, click ids as sent.

They follow from a batch's number, so that a benchmark can ask again for what it wrote without keeping it.
"""

import random
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

from impact_plugin.sessions.sessions import DIGEST_BYTES
from impact_plugin.store.base import CALL_SIZE, SessionQuery
from impact_plugin.store.engine import Capacities

START_MS: Final = 1_789_000_000_000
DAY_MS: Final = 24 * 3600 * 1000
WINDOW_MS: Final = 30 * 60 * 1000
REFERRAL_MS: Final = 30 * DAY_MS
RETENTION_SECONDS: Final = 96 * 3600.0
CLICK_ID_CHARACTERS: Final = 36
ROOMY: Final = Capacities(20_000_000, 20_000_000, 20_000_000)
"""More than any benchmark writes: nothing is evicted."""

Ids: TypeAlias = list[bytes]


def _digests(seed: str, count: int) -> Ids:
    blob = random.Random(seed).randbytes(count * DIGEST_BYTES)
    return [blob[at : at + DIGEST_BYTES] for at in range(0, len(blob), DIGEST_BYTES)]


def claims(batch: int, messages: str = "first", size: int = CALL_SIZE, later_ms: int = 0) -> list[SessionQuery]:
    """Candidates of the batch's keys; other ``messages`` are other events of the same keys, ``later_ms`` later."""
    time = START_MS + batch % DAY_MS + later_ms
    keys, owners = _digests(f"key {batch}", size), _digests(f"{messages} {batch}", size)
    return [SessionQuery(owner, time, key, WINDOW_MS) for key, owner in zip(keys, owners, strict=True)]


def clicks(batch: int, number: int = 0, size: int = CALL_SIZE) -> list[SessionQuery]:
    """The visitors' ``number``-th clicks, each with a click id of its own; an identity for each visitor."""
    visitors, owners = _digests(f"visitor {batch}", size), _digests(f"click {number} {batch}", size)
    ids = [random_click_id(f"{number} {batch} {index}") for index in range(size)]
    return [
        SessionQuery(owner, START_MS + number * 1000, click_id=click_id, anonymous=visitor)
        for owner, visitor, click_id in zip(owners, visitors, ids, strict=True)
    ]


def orders(
    batch: int, size: int = CALL_SIZE, visitors: Literal["visitor", "stranger"] = "visitor"
) -> list[SessionQuery]:
    """An order of each visitor, or of visitors that never clicked, asking for the remembered click id."""
    found = _digests(f"{visitors} {batch}", size)
    owners = _digests(f"order of {visitors} {batch}", size)
    time = START_MS + DAY_MS
    return [
        SessionQuery(owner, time, anonymous=one, asks=True, order=True, keeps=True, referral=REFERRAL_MS)
        for owner, one in zip(owners, found, strict=True)
    ]


def random_click_id(seed: str) -> str:
    """As long as the longest that are common."""
    return random.Random(seed).randbytes(CLICK_ID_CHARACTERS // 2).hex()


def sampled(batches: int, count: int) -> Iterator[int]:
    """Numbers of ``count`` batches spread over all of them."""
    return (index * batches // count for index in range(count))
