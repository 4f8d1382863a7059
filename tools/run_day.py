"""``make run``: a recorded day of a shop, through the real protocol, to a stand-in for impact.com.

Starts the stand-in and the service as processes, sends the day as rudder-server would, tells what became of every
event, and keeps serving so that the README's curl lines can be tried. Loopback only.
"""

import argparse
import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from impact_plugin.testing import JobResult, StrictRudder
from make_day import DESTINATION_CONFIG, read_day

ROOT: Final = Path(__file__).parents[1]
SUB_JOB: Final = 400
"""Events rudder-server works on at once: four requests of a hundred, in parallel."""

STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
START_SECONDS: Final = 20.0


def main() -> int:
    """Run the day; returns the exit code."""
    options = _options()
    console = Console()
    taken = [port for port in (options.port, options.operator_port, options.impact_port) if _is_taken(port)]
    if taken:
        console.print(f"[red]port {taken[0]} is in use:[/] stop what listens there, or choose others, see --help")
        return 2
    for number in STOPS:
        signal.signal(number, _leave)
    with (
        tempfile.TemporaryDirectory() as state,
        processes(options.port, options.operator_port, options.impact_port, state),
    ):
        asyncio.run(_run(options, console))
        return 0 if options.once else _code(_keep_serving(options, console))


def _leave(number: int, _frame: object) -> None:
    """End by way of the blocks that stop what was started, once: nothing is left on the ports."""
    for other in STOPS:
        signal.signal(other, signal.SIG_IGN)
    sys.exit(_code(number))


def _code(number: int) -> int:
    """Ctrl-C is how it is meant to end."""
    return 0 if number == signal.SIGINT else 128 + number


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="stop after the day instead of serving on")
    parser.add_argument("--port", type=int, default=9090, help="the service's port for the router")
    parser.add_argument("--operator-port", type=int, default=9091, help="the service's port for metrics")
    parser.add_argument("--impact-port", type=int, default=9099, help="the stand-in's port")
    return parser.parse_args()


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


@contextlib.contextmanager
def processes(router: int, operator: int, impact: int, state: str) -> Iterator[None]:
    """The service on two ports, its state in a folder, before a stand-in on a third; stopped when the block ends."""
    address = f"http://127.0.0.1:{impact}"
    environment = os.environ | {
        "IMPACT_PLUGIN__IMPACT__TRACKING_URL": address,
        "IMPACT_PLUGIN__IMPACT__API_URL": address,
        "IMPACT_PLUGIN__STATE__DIR": state,
        "IMPACT_PLUGIN__LOG__LEVEL": "warning",
    }
    command = [sys.executable, "-m", "impact_plugin"]
    ports = ["--port", str(router), "--operator-port", str(operator)]
    fake = subprocess.Popen([*command, "fake-impact", "--port", str(impact)], cwd=ROOT, stdout=subprocess.DEVNULL)
    service = subprocess.Popen([*command, "serve", *ports], env=environment, cwd=ROOT)
    try:
        yield
    finally:
        for process in (service, fake):
            process.send_signal(signal.SIGTERM)
        for process in (service, fake):
            process.wait(timeout=30)


async def _run(options: argparse.Namespace, console: Console) -> None:
    day = read_day()
    await wait_for(f"http://127.0.0.1:{options.port}/health")
    await wait_for(f"http://127.0.0.1:{options.impact_port}/_calls")
    url = f"http://127.0.0.1:{options.port}"
    async with StrictRudder(url, destination_config=DESTINATION_CONFIG) as router:
        await router.wait_for_features()
        results, delivered, latencies = await _send(router, day, console)
    _tell(day, results, delivered, latencies, console)
    await _tell_sessions(options.operator_port, console)
    await _tell_arrivals(options.impact_port, console)


async def wait_for(url: str) -> None:
    """Return when the URL answers 200."""
    deadline = time.monotonic() + START_SECONDS
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)
    raise SystemExit(f"{url} did not answer within {START_SECONDS:.0f} s; see the messages above")


async def _send(
    router: StrictRudder, day: list[dict[str, Any]], console: Console
) -> tuple[list[JobResult], list[JobResult], list[float]]:
    """Transform and deliver sub-job by sub-job, as the router does."""
    results: list[JobResult] = []
    delivered: list[JobResult] = []
    latencies: list[float] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("a day of shop.example.com", total=len(day))
        for start in range(0, len(day), SUB_JOB):
            began = time.perf_counter()
            transformed = await router.send_processor(day[start : start + SUB_JOB])
            latencies.append(time.perf_counter() - began)
            results += transformed
            delivered += await router.deliver(transformed)
            progress.advance(task, len(transformed))
    return results, delivered, latencies


def _tell(
    day: Sequence[dict[str, Any]],
    results: Sequence[JobResult],
    delivered: Sequence[JobResult],
    latencies: Sequence[float],
    console: Console,
) -> None:
    counts = Counter(_row(event, result) for event, result in zip(day, results, strict=True))
    table = Table("call", "outcome", "reason", "events", title="What became of the events")
    table.columns[3].justify = "right"
    for (call, outcome, reason), number in sorted(counts.items()):
        table.add_row(call, outcome, reason, str(number))
    table.add_section()
    table.add_row("all", "", "", str(counts.total()))
    console.print(table)
    states = Counter(one.state for one in delivered)
    told = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    console.print(f"router: {len(day)} events sent, {len(results)} answered; in the end {told}")
    cuts = quantiles(latencies, n=100)
    console.print(f"time for {SUB_JOB} events in four parallel requests: p50 {cuts[49]:.3f} s, p99 {cuts[98]:.3f} s")


def _row(event: dict[str, Any], result: JobResult) -> tuple[str, str, str]:
    kind = event.get("type")
    call = kind.lower() if isinstance(kind, str) else "(none)"
    if result.request is not None:
        return call, str(result.request.get("endpointPath")), ""
    reason = result.error.rpartition("(")[2].partition(")")[0]
    return call, "filtered" if result.status == 298 else "rejected", reason


async def _tell_sessions(port: int, console: Console) -> None:
    """Tell what the session state made of the day, from the service's own metrics."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as response:
        metrics = await response.text()
    found = {
        (name, label): int(float(value))
        for name, label, value in re.findall(
            r'^impact_plugin_(\w+?)(?:_total)?(?:{\w+="(\w+)"})? ([0-9.e+]+)$', metrics, re.MULTILINE
        )
    }
    clicks = {kind: found.get(("click_decisions", kind), 0) for kind in ("new", "repeat")}
    orders = {kind: found.get(("orders", kind), 0) for kind in ("carried", "stitched", "without")}
    console.print(f"clicks: {clicks['new']} unique, {clicks['repeat']} repeated")
    console.print(
        f"orders, leads and installs: {orders['carried']} brought their click id, {orders['stitched']} were stitched "
        f"to an earlier click, {orders['without']} have none "
        f"({found.get(('late_clicks', ''), 0)} of them came before their click)"
    )


async def _tell_arrivals(port: int, console: Console) -> None:
    """Tell what the stand-in for impact.com saw."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/_calls") as response:
        calls = (await response.json())["calls"]
    seen = Counter((call["path"].rpartition("/")[2], call["status"]) for call in calls)
    orders = {(call["form"].get("EventTypeId"), call["form"]["OrderId"]) for call in calls if "OrderId" in call["form"]}
    told = ", ".join(f"{number} {name} answered {status}" for (name, status), number in sorted(seen.items()))
    console.print(f"stand-in for impact.com: {told}; {len(orders)} different orders, leads and installs")


def _keep_serving(options: argparse.Namespace, console: Console) -> int:
    """Wait for a signal to stop; which one it was."""
    # From here on none is lost, nor comes at a bad moment.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    console.print(f"\nstill serving: router port [bold]http://127.0.0.1:{options.port}[/],", end=" ")
    console.print(f"metrics http://127.0.0.1:{options.operator_port}/metrics,", end=" ")
    console.print(f"arrived requests http://127.0.0.1:{options.impact_port}/_calls")
    console.print("Ctrl-C stops it.")
    return signal.sigwait(STOPS)


if __name__ == "__main__":
    sys.exit(main())
