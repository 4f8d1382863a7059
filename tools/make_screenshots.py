"""``make screenshots``: the reports of the documentation, made anew and photographed in light and dark.

The replays are those of the tutorial and the how-to; the load is a short one on this machine, with a stand-in for
impact.com. Loopback only. Fails when a page is wider than a phone, or when texts of a chart are cut off or overlap.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from browser import BrowserError, Scheme, Tab, browser

ROOT: Final = Path(__file__).parents[1]
PICTURES: Final = ROOT / "docs" / "images"
DAY: Final = ROOT / "tools" / "day.ndjson.gz"
COMMAND: Final = (sys.executable, "-m", "impact_plugin")
SCHEMES: Final[tuple[Scheme, ...]] = ("light", "dark")
WIDTH: Final = 860
PHONE: Final = 420
START_SECONDS: Final = 20.0
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

ABOVE_REASONS: Final = "[...document.querySelectorAll('h2')].find(one => one.innerText == 'Why not').offsetTop - 20"
"""Where the part of a comparison ends that a plain replay does not have."""


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
        for name, file in _reports(folder):
            for scheme in SCHEMES:
                await _check(tab, file, scheme)
                await tab.show(file, scheme, WIDTH)
                picture = PICTURES / f"{name}-{scheme}.png"
                height = await tab.evaluate(ABOVE_REASONS) if name == "replay-changes" else None
                picture.write_bytes(await tab.picture(height))
                print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size:,} bytes")


async def _check(tab: Tab, file: Path, scheme: Scheme) -> None:
    """Raise :class:`BrowserError` when something of the page cannot be read, on a phone or on a desk."""
    for width in (PHONE, WIDTH):
        await tab.show(file, scheme, width)
        if (excess := await tab.evaluate(TOO_WIDE)) > 0:
            raise BrowserError(f"{file.name} is {excess} pixels wider than a window of {width}")
        if bad := await tab.evaluate(BAD_TEXTS):
            raise BrowserError(f"{file.name}, {width} wide: cut off, or over another text: {', '.join(bad)}")


def _reports(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and file of every report."""
    replay, changes, load = (folder / f"{name}.html" for name in ("replay", "changes", "load"))
    today, tomorrow = folder / "impact.toml", folder / "tomorrow.toml"
    today.write_text(TODAY, encoding="utf-8")
    tomorrow.write_text(TOMORROW, encoding="utf-8")
    _run("replay", DAY, "--html", replay)
    yield "replay-report", replay
    _run("replay", DAY, "--destination", today, "--against", tomorrow, "--html", changes)
    yield "replay-changes", changes
    with _service(folder) as url:
        _run("load", DAY, "--url", url, "--rate", RATES, "--html", load)
    yield "load-report", load


def _run(*words: str | Path) -> None:
    subprocess.run([*COMMAND, *map(str, words), "--quiet"], cwd=ROOT, check=True)


@contextlib.contextmanager
def _service(folder: Path) -> Iterator[str]:
    """The service before a stand-in for impact.com, on free ports; both are stopped when the block ends."""
    impact, router, operator, ingest = _free_ports(4)
    environment = os.environ | {
        "IMPACT_PLUGIN__IMPACT__TRACKING_URL": f"http://127.0.0.1:{impact}",
        "IMPACT_PLUGIN__IMPACT__API_URL": f"http://127.0.0.1:{impact}",
        "IMPACT_PLUGIN__STATE__DIR": str(folder / "state"),
        "IMPACT_PLUGIN__LOG__LEVEL": "warning",
    }
    ports = ("--port", str(router), "--operator-port", str(operator), "--ingest-port", str(ingest))
    with _process("fake-impact", "--port", str(impact)), _process("serve", *ports, environment=environment):
        _wait_for(f"http://127.0.0.1:{operator}/ready")
        yield f"http://127.0.0.1:{router}"


@contextlib.contextmanager
def _process(*words: str, environment: dict[str, str] | None = None) -> Iterator[None]:
    process = subprocess.Popen([*COMMAND, *words], env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=START_SECONDS)


def _free_ports(many: int) -> Sequence[int]:
    """Ports that nothing listens on; all are held until the last is found, so that no two are the same."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(many)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(url, timeout=1):  # noqa: S310 - http
            return
        time.sleep(0.05)
    raise SystemExit(f"{url} did not answer within {START_SECONDS:.0f} s; see the messages above")


if __name__ == "__main__":
    sys.exit(main())
