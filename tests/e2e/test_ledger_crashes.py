"""The ledger of a process that is killed: what was sent, or may have been, is never taken for a new order."""

import asyncio
import hashlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import pytest

from impact_plugin.config.settings import DeliverySettings, StateSettings
from impact_plugin.orders.embedded_ledger import EmbeddedLedger, open_ledger
from impact_plugin.orders.ledger import BEGUN, OrderOutcome, Standing

KILLS: Final = [10, pytest.param(300, marks=[pytest.mark.campaign, pytest.mark.timeout(1800)])]
ORDERS: Final = 12_000
SENDERS: Final = 8
SECONDS: Final = 15.0
DAY: Final = 86400.0
DELIVERED: Final = "delivered"
NOTHING: Final = "nothing"
FLUSHED: Final = "flushed"


def identity(name: str) -> bytes:
    """The identity of an order."""
    return hashlib.blake2b(name.encode(), digest_size=15).digest()


def opened(folder: Path) -> AbstractAsyncContextManager[EmbeddedLedger]:
    """The ledger of a folder; a killed process is what is tested here, not the power."""
    state = StateSettings(str(folder), durability="process", timeout_seconds=10.0)
    return open_ledger(state, DeliverySettings(), time.time)


def live(folder: Path, log: Path, seed: int) -> None:
    """In a process of its own: begin, send and settle orders until the end, each step told in the log."""
    # Each line is one write, which a kill does not tear.
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def tell(*words: str) -> None:
        os.write(descriptor, (" ".join(words) + "\n").encode())

    async def send(ledger: Any, chance: random.Random, sender: int) -> None:
        while True:
            name = f"{sender}-{chance.randrange(ORDERS // SENDERS)}"
            standing = await ledger.begin(identity(name))
            tell(name, standing)
            if standing not in BEGUN:
                continue
            await asyncio.sleep(chance.choice((0, 0, 0.001)))
            outcome = chance.choice(list(OrderOutcome))
            # Said before it is settled: who reads NOTHING here knows that the ledger may have it too.
            tell(name, "settles", outcome)
            await ledger.settle(identity(name), outcome)
            if chance.random() < 0.3:
                await ledger.flush()
                tell(name, FLUSHED, outcome)

    async def run() -> None:
        async with opened(folder) as ledger:
            tell("-", "opened")
            chances = [random.Random(seed * SENDERS + one) for one in range(SENDERS)]  # noqa: S311 - a test repeats it
            await asyncio.gather(*[send(ledger, chance, one) for one, chance in enumerate(chances)])

    asyncio.run(run())


@pytest.fixture(name="log")
def log_fixture(tmp_path: Path) -> Path:
    """Lend the path of what the processes tell."""
    return tmp_path / "log"


@pytest.fixture(name="lives")
def lives_fixture(tmp_path: Path, log: Path, kills: int) -> Iterator[BaseProcess]:
    """Lend process after process on the same folder; each is killed when the next is asked for."""
    # Forked from a process that has imported everything: many starts in the time of a few.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["impact_plugin.orders.embedded_ledger", "pytest"])

    def start() -> Iterator[BaseProcess]:
        for seed in range(kills):
            process = context.Process(target=live, args=(tmp_path, log, seed))
            process.start()
            try:
                yield process
            finally:
                process.kill()
                process.join(SECONDS)
                process.close()

    return start()


def lines(log: Path) -> list[list[str]]:
    """What was told so far, in words."""
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def wait_for_life(log: Path, number: int) -> None:
    """Until so many processes have opened the ledger."""
    deadline = time.monotonic() + SECONDS
    while sum(words[1] == "opened" for words in lines(log)) < number:
        assert time.monotonic() < deadline, "the process did not open the ledger"
        time.sleep(0.005)


def wrongly_clear(told: list[list[str]]) -> list[str]:
    """Orders that were CLEAR although something else than nothing came, or may have come, of an earlier attempt."""
    in_doubt: dict[str, list[bool]] = {}
    found = []
    for name, word, *more in told:
        attempts = in_doubt.setdefault(name, [])
        if word == Standing.CLEAR and any(attempts):
            found.append(name)
        if word in BEGUN:
            attempts.append(True)
        elif word == "settles" and more == [NOTHING]:
            attempts[-1] = False
    return found


@pytest.mark.parametrize("kills", KILLS)
def test_kills_at_any_moment(lives: Iterator[BaseProcess], log: Path, tmp_path: Path, kills: int) -> None:
    """Processes one after the other: none takes for new what one before it sent or may have sent."""
    chance = random.Random(20260910)  # noqa: S311 - a seed, so that a failure can be found again
    codes = []
    for number, process in enumerate(lives, 1):
        wait_for_life(log, number)
        time.sleep(chance.uniform(0, 0.08))
        process.kill()
        process.join(SECONDS)
        codes.append(process.exitcode)
    told = lines(log)

    async def stand(names: set[str]) -> dict[str, Standing]:
        async with opened(tmp_path) as ledger:
            return {name: await ledger.begin(identity(name)) for name in names}

    delivered = {name for name, *more in told if more == [FLUSHED, DELIVERED]}
    standings = asyncio.run(stand({name for name, *_ in told if name != "-"}))
    told += [[name, standing] for name, standing in standings.items()]

    assert [-signal.SIGKILL] * kills == codes
    assert {Standing.DELIVERED} == {standings[name] for name in delivered}
    assert [] == wrongly_clear(told)
    # The orders were not all settled when the processes died, or this would prove nothing.
    assert {Standing.CLEAR, Standing.AMBIGUOUS, Standing.DELIVERED} == set(standings.values())
