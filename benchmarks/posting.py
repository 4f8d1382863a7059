"""Ways to send the same requests to the same sink from one process, from the bare client to the whole engine."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import quantiles
from tempfile import TemporaryDirectory
from time import perf_counter, process_time, time
from typing import Final, TypeAlias

import aiohttp
import msgspec

from impact_plugin.config.settings import DeliverySettings, StateSettings
from impact_plugin.delivery.client import open_delivery_client
from impact_plugin.delivery.pipeline import Deliveries, DeliveryRequest, OrderIdentity
from impact_plugin.files import Durability
from impact_plugin.orders.embedded_ledger import open_ledger
from impact_plugin.process.background import open_background
from impact_plugin.sessions.sessions import Digests
from impact_plugin.telemetry import Telemetry
from impact_transformers import Secret

FORM: Final = (
    b"CampaignId=23224&EventTypeId=1&EventDate=2026-09-10T10%3A00%3A00Z&CustomProfileId=507f191e-810c-4972-9de8-60ea&"
    b"OrderId=o-1&CurrencyCode=EUR&ItemSku1=sku-1&ItemPrice1=10.00&ItemQuantity1=1&IpAddress=192.0.2.1"
)
HEADERS: Final = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
SECONDS: Final = 30.0
PULSE_SECONDS: Final = 0.005
MILLISECONDS: Final = 1e3

Send: TypeAlias = Callable[[int], Awaitable[None]]
Sender: TypeAlias = Callable[[str], "AsyncIterator[Send]"]


class Posted(msgspec.Struct, frozen=True):
    """What sending took: POST/s by the clock, CPU seconds for each, and how late the event loop's pulse was (p99)."""

    per_second: float
    cpu: float
    lag_ms: float


@asynccontextmanager
async def bare(url: str) -> AsyncIterator[Send]:
    """Aiohttp's client with nothing around it."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def send(_number: int) -> None:
            async with session.post(f"{url}/PageLoad", data=FORM, headers=HEADERS) as response:
                await response.read()

        yield send


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Send]:
    """Our client: deadlines, written or not, bounded bodies."""
    async with open_delivery_client() as ours:

        async def send(_number: int) -> None:
            await ours.post(f"{url}/PageLoad", HEADERS, FORM, seconds=SECONDS)

        yield send


@asynccontextmanager
async def _engine(durability: Durability) -> AsyncIterator[Deliveries]:
    with TemporaryDirectory() as folder:
        delivery = DeliverySettings(account_connections=512)
        state = StateSettings(dir=folder, durability=durability)
        async with (
            open_ledger(state, delivery, time) as ledger,
            open_delivery_client() as ours,
            open_background() as tasks,
        ):
            digest = Digests(Secret("benchmark-secret")).of
            deliveries = Deliveries(delivery, ours, ledger, digest, Telemetry(), time)
            tasks.start_soon(deliveries.run)
            yield deliveries


@asynccontextmanager
async def page_loads(url: str) -> AsyncIterator[Send]:
    """The engine: scheduler, limiter, lanes, client, outcome."""
    async with _engine("process") as deliveries:

        async def send(number: int) -> None:
            request = DeliveryRequest("IRbench", "pageload", f"{url}/PageLoad", HEADERS, FORM, f"visitor-{number}")
            await _delivered(deliveries, request)

        yield send


def conversions(durability: Durability) -> Callable[[str], object]:
    """The engine with the ledger: an intent on disk before each."""

    @asynccontextmanager
    async def opened(url: str) -> AsyncIterator[Send]:
        async with _engine(durability) as deliveries:

            async def send(number: int) -> None:
                order = OrderIdentity("IRbench", "1", "id:1", f"o-{number}")
                address = f"{url}/Advertisers/IRbench/Conversions"
                request = DeliveryRequest("IRbench", "conversions", address, HEADERS, FORM, f"visitor-{number}", order)
                await _delivered(deliveries, request)

            yield send

    return opened


async def _delivered(deliveries: Deliveries, request: DeliveryRequest) -> None:
    verdict = await deliveries.deliver(request, seconds=SECONDS)
    if verdict.result != "delivered":
        raise RuntimeError(f"the sink refused: {verdict.text}")


async def post_all(send: Send, number: int, in_flight: int, first: int = 0) -> Posted:
    """Send so many, so many at a time."""
    waiting = iter(range(first, first + number))

    async def stream() -> None:
        for one in waiting:
            await send(one)

    late: list[float] = []
    pulse = asyncio.create_task(_pulse(late))
    cpu, wall = process_time(), perf_counter()
    await asyncio.gather(*(stream() for _ in range(in_flight)))
    cpu, wall = process_time() - cpu, perf_counter() - wall
    pulse.cancel()
    lag = quantiles(late, n=100)[98] if len(late) > 1 else 0.0
    return Posted(number / wall, cpu / number, lag * MILLISECONDS)


async def _pulse(late: list[float]) -> None:
    """Note how much later than asked the event loop comes round."""
    while True:
        started = perf_counter()
        await asyncio.sleep(PULSE_SECONDS)
        late.append(perf_counter() - started - PULSE_SECONDS)
