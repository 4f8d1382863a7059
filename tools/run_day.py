"""``make run``: a recorded day of a shop, through the real protocol, to a stand-in for impact.com.

Starts the stand-in and the service as processes, sends the day as rudder-server would, prints what became of every
event, and keeps serving so that you can try the README's lines. Everything stays on this machine.
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
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.terminal_theme import MONOKAI

from impact_plugin.testing import JobResult, StrictRudder
from make_day import DESTINATION_CONFIG, read_day

ROOT: Final = Path(__file__).parents[1]
SUB_JOB: Final = 400
"""Events rudder-server works on at once: four requests of a hundred, in parallel."""

STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
START_SECONDS: Final = 20.0
WIDTH: Final = 92
"""Of the picture, in characters."""

STYLES: Final = {"sent": "green", "filtered": "yellow", "rejected": "red"}
"""By outcome, in the order in which they are shown."""


def main() -> int:
    """Run the day; returns the exit code."""
    options = _options()
    console = Console(record=options.svg is not None, width=WIDTH if options.svg else None)
    taken = [port for port in (options.port, options.operator_port, options.impact_port) if _is_taken(port)]
    if taken:
        console.print(f"[red]port {taken[0]} is in use:[/] stop what listens there, or choose other ports, see --help")
        return 2
    for number in STOPS:
        signal.signal(number, _stop)
    with (
        tempfile.TemporaryDirectory() as state,
        processes(options.port, options.operator_port, options.impact_port, state),
    ):
        asyncio.run(_run(options, console))
        return 0 if options.once else _exit_code(_keep_serving(options, console))


def _stop(number: int, _frame: object) -> None:
    """Leave through the blocks that stop the processes, once, so that the ports are free afterwards."""
    for other in STOPS:
        signal.signal(other, signal.SIG_IGN)
    sys.exit(_exit_code(number))


def _exit_code(number: int) -> int:
    """Ctrl-C is the intended end."""
    return 0 if number == signal.SIGINT else 128 + number


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="stop after the day instead of serving on")
    parser.add_argument("--svg", type=Path, help="also draw what is printed as a picture into this file")
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
    console.print(_events_table(day, results))
    facts = Table.grid(padding=(0, 2))
    facts.add_row("router", _router_facts(day, results, delivered))
    facts.add_row("latency", _latency_facts(latencies))
    for name, text in (*await _session_facts(options.operator_port), await _arrivals(options.impact_port)):
        facts.add_row(name, text)
    console.print(facts)
    if options.once and options.svg:
        _draw(console, options.svg)


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


def _events_table(day: Sequence[dict[str, Any]], results: Sequence[JobResult]) -> Table:
    counts = Counter(_row(event, result) for event, result in zip(day, results, strict=True))
    table = Table("call", "outcome", "as, or why not", "events", title="What became of the events", box=SIMPLE)
    table.columns[3].justify = "right"
    for (call, outcome, reason), number in sorted(counts.items(), key=_place):
        table.add_row(call, outcome, reason, f"{number:,}", style=STYLES[outcome])
    table.add_section()
    table.add_row("all", "", "", f"{counts.total():,}")
    return table


def _row(event: dict[str, Any], result: JobResult) -> tuple[str, str, str]:
    kind = event.get("type")
    call = kind.lower() if isinstance(kind, str) else "(none)"
    if result.request is not None:
        return call, "sent", str(result.request.get("endpointPath"))
    reason = result.error.rpartition("(")[2].partition(")")[0]
    return call, "filtered" if result.status == 298 else "rejected", reason


def _place(entry: tuple[tuple[str, str, str], int]) -> tuple[str, int, str]:
    (call, outcome, reason), _ = entry
    return call, list(STYLES).index(outcome), reason


def _router_facts(day: Sequence[dict[str, Any]], results: Sequence[JobResult], delivered: Sequence[JobResult]) -> str:
    states = Counter(one.state for one in delivered)
    listed = ", ".join(f"{number:,} {state}" for state, number in sorted(states.items()))
    return f"{len(day):,} events sent, {len(results):,} answered; jobs: {listed}"


def _latency_facts(latencies: Sequence[float]) -> str:
    cuts = quantiles(latencies, n=100)
    return f"{SUB_JOB} events in four parallel requests: p50 {cuts[49]:.3f} s, p99 {cuts[98]:.3f} s"


async def _session_facts(port: int) -> list[tuple[str, str]]:
    """What the session state made of the day, from the service's own metrics."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as response:
        metrics = await response.text()
    found = {
        (name, label): int(float(value))
        for name, label, value in re.findall(
            r'^impact_plugin_(\w+?)(?:_total)?(?:{\w+="(\w+)"})? ([0-9.e+]+)$', metrics, re.MULTILINE
        )
    }
    late = found.get(("late_clicks", ""), 0)
    clicks = {kind: found.get(("click_decisions", kind), 0) for kind in ("new", "repeat")}
    orders = {kind: found.get(("orders", kind), 0) for kind in ("carried", "stitched", "without")}
    conversions = (
        f"{orders['carried']} carried a click id, {orders['stitched']} were stitched to an earlier click, "
        f"{orders['without']} have none ({late} of these came before their click)"
    )
    return [("clicks", f"{clicks['new']} unique, {clicks['repeat']} repeats"), ("conversions", conversions)]


async def _arrivals(port: int) -> tuple[str, str]:
    """What the stand-in for impact.com received."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/_calls") as response:
        calls = (await response.json())["calls"]
    seen = Counter((call["path"].rpartition("/")[2], call["status"]) for call in calls)
    orders = {(call["form"].get("EventTypeId"), call["form"]["OrderId"]) for call in calls if "OrderId" in call["form"]}
    listed = ", ".join(f"{number:,} {name} answered {status}" for (name, status), number in sorted(seen.items()))
    return "fake-impact", f"{listed}; {len(orders)} different orders, leads and installs"


def _keep_serving(options: argparse.Namespace, console: Console) -> int:
    """Wait for a signal to stop; returns its number."""
    # Blocked from here on, so that a signal that arrives before the wait is not lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    console.print("\nStill serving; Ctrl-C stops it.", style="bold")
    addresses = Table.grid(padding=(0, 2))
    addresses.add_row("router's port", f"http://127.0.0.1:{options.port}")
    addresses.add_row("metrics", f"http://127.0.0.1:{options.operator_port}/metrics")
    addresses.add_row("arrived requests", f"http://127.0.0.1:{options.impact_port}/_calls")
    console.print(addresses)
    if options.svg:
        _draw(console, options.svg)
    return signal.sigwait(STOPS)


def _draw(console: Console, file: Path) -> None:
    """Write what was printed as a picture of a terminal, in the reader's own fixed-width font."""
    drawn = console.export_svg(title="make run", theme=MONOKAI)
    local = re.sub(r"@font-face {.*?}", "", drawn, flags=re.DOTALL).replace("Fira Code", "ui-monospace")
    file.write_text(re.sub(r"\n\s*\n", "\n", local), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
