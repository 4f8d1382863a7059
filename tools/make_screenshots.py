"""``make screenshots``: what ``make run`` prints, drawn anew, and the reports, photographed in light and dark.

The replays are those of the tutorial and the how-to; the load is a short one on this machine, with a stand-in for
impact.com. Everything stays on this machine. Fails when a page is wider than a phone, or when texts of a chart are
cut off or overlap.
"""

import asyncio
import contextlib
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from browser import BrowserError, Scheme, Tab, browser
from run_day import processes, wait_for

ROOT: Final = Path(__file__).parents[1]
PICTURES: Final = ROOT / "docs" / "images"
DAY: Final = ROOT / "tools" / "day.ndjson.gz"
RUN_DAY: Final = ROOT / "tools" / "run_day.py"
COMMAND: Final = (sys.executable, "-m", "impact_plugin")
SCHEMES: Final[tuple[Scheme, ...]] = ("light", "dark")
WIDTH: Final = 860
PHONE: Final = 420
RATES: Final = "5:3,5-40:8,40:3"
"""Steady, a ramp, steady again."""

TODAY: Final = """
[destinations.eu]
accountSID = "IRtutorial"
apiKey = "the-token"
campaignId = "23224"
"""
TOMORROW: Final = f"""{TODAY}
eventTypes = {{ "Newsletter Subscribed" = {{ code = "NEWSLETTER", kind = "lead" }} }}
repeatedClicks = "drop"
"""
"""What the tutorial changes."""

TOO_WIDE: Final = """
Math.max(document.documentElement.scrollWidth - innerWidth,
  ...[...document.querySelectorAll('.scroll')].map(box => box.scrollWidth - box.clientWidth))
"""
"""By how much the page, or a table within it, is wider than the window."""

BAD_TEXTS: Final = """
[...document.querySelectorAll('.tile, .bars, .chart')].flatMap(chart => {
  const whole = chart.getBoundingClientRect();
  const texts = [];
  for (const walk = document.createTreeWalker(chart, NodeFilter.SHOW_TEXT); walk.nextNode();) {
    const range = document.createRange();
    range.selectNodeContents(walk.currentNode);
    const box = range.getBoundingClientRect();
    if (box.width) texts.push([walk.currentNode.data, box]);
  }
  const cut = texts.filter(([, box]) => box.left < whole.left - 1 || box.right > whole.right + 1);
  const over = texts.filter(([, one], place) => texts.slice(0, place).some(([, other]) => one.left < other.right
    && other.left < one.right && one.top < other.bottom - 3 && other.top < one.bottom - 3));
  return [...cut, ...over].map(([text]) => text);
})
"""
"""Texts of the charts that stand out of them or over one another."""

ABOVE_REASONS: Final = (
    "[...document.querySelectorAll('h2')].find(one => one.innerText == 'Filtered and rejected').offsetTop - 20"
)
"""Where the part of a comparison ends that a plain replay does not have."""

SOME_MISSING: Final = """
(() => {
  const heading = [...document.querySelectorAll('h2')].find(one => one.innerText == 'Missing orders');
  const top = heading.getBoundingClientRect().bottom;
  const after = [...document.querySelectorAll('tr')].map(row => row.getBoundingClientRect())
    .filter(row => row.top > top);
  return Math.round(after[9].bottom + scrollY);
})()
"""
"""Where the first few missing orders end: the others look alike."""

CUTS: Final = {"replay-changes": ABOVE_REASONS, "replay-report": SOME_MISSING}
"""Pictures that end before the page does."""


def main() -> int:
    """Make the reports and their pictures; returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            asyncio.run(_photograph(Path(folder)))
        except BrowserError as error:
            print(f"make screenshots: {error}", file=sys.stderr)
            return 1
    return 0


async def _photograph(folder: Path) -> None:
    # The browser comes first: without one nothing else needs to be made.
    async with browser() as tab:
        await _draw_run(PICTURES / "make-run.svg")
        async for name, file in _reports(folder):
            for scheme in SCHEMES:
                await _check(tab, file, scheme)
                await tab.show(file, scheme, WIDTH)
                picture = PICTURES / f"{name}-{scheme}.png"
                height = await tab.evaluate(CUTS[name]) if name in CUTS else None
                picture.write_bytes(await tab.picture(height))
                print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size:,} bytes")


async def _draw_run(picture: Path) -> None:
    """Let ``make run`` draw what it prints, up to where it keeps serving, and stop it there."""
    command = [sys.executable, str(RUN_DAY), "--svg", str(picture)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    printed = process.stdout or asyncio.StreamReader()
    while (line := await printed.readline()) and b"Ctrl-C" not in line:
        pass
    # Held back by the process until it waits for it, which is when the picture is drawn.
    process.send_signal(signal.SIGINT)
    await printed.read()
    if code := await process.wait():
        raise SystemExit(f"run_day.py ended with {code}; see the messages above")
    print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size:,} bytes")


async def _check(tab: Tab, file: Path, scheme: Scheme) -> None:
    """Raise :class:`BrowserError` when something of the page cannot be read, on a phone or on a desk."""
    for width in (PHONE, WIDTH):
        await tab.show(file, scheme, width)
        if (excess := await tab.evaluate(TOO_WIDE)) > 0:
            raise BrowserError(f"{file.name} is {excess} pixels wider than a window of {width}")
        if bad := await tab.evaluate(BAD_TEXTS):
            raise BrowserError(f"{file.name}, {width} wide: cut off, or over another text: {', '.join(bad)}")


async def _reports(folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """Name and file of every report."""
    replay, changes, load = (folder / f"{name}.html" for name in ("replay", "changes", "load"))
    today, tomorrow = folder / "impact.toml", folder / "tomorrow.toml"
    today.write_text(TODAY, encoding="utf-8")
    tomorrow.write_text(TOMORROW, encoding="utf-8")
    await _run("replay", DAY, "--html", replay)
    yield "replay-report", replay
    await _run("replay", DAY, "--destination", today, "--against", tomorrow, "--html", changes)
    yield "replay-changes", changes
    router, operator, impact = _free_ports(3)
    with processes(router, operator, impact, str(folder / "state")):
        await wait_for(f"http://127.0.0.1:{operator}/ready")
        await _run("load", DAY, "--url", f"http://127.0.0.1:{router}", "--rate", RATES, "--html", load)
    yield "load-report", load


async def _run(*words: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(*COMMAND, *map(str, words), "--quiet", cwd=ROOT)
    if await process.wait():
        raise SystemExit(f"{words[0]} ended with {process.returncode}; see the messages above")


def _free_ports(many: int) -> Sequence[int]:
    """Ports that nothing listens on; all are held until the last is found, so that no two are the same."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(many)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


if __name__ == "__main__":
    sys.exit(main())
