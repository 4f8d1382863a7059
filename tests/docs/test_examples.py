"""Every example of the tutorial and the how-tos is run as it stands, in a shell, from a clone; what they say comes out.

Blocks of a page are one session: what one starts the next one uses. ``sh`` blocks are run, ``text`` blocks name lines
that must have come out before them, and ``console`` blocks are for what no test can have (systemd, an hour, a network).
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted([*(ROOT / "docs" / "tutorial").glob("*.md"), *(ROOT / "docs" / "how-to").glob("*.md")])
FENCE: Final = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SECONDS: Final = 120.0
PORTS: Final = {"9090": "PORT", "9091": "OPERATOR_PORT", "9092": "INGEST_PORT"}
ELSEWHERE: Final = ("systemctl", "impact-plugin record", "--host 0.0.0.0", "--workers 4")
"""What a console block may be about: an engine, an hour of recording, a network, a Redis server."""

CUT: Final = "cut here"


def blocks(page: Path) -> list[tuple[str, str]]:
    """The language and the text of every block."""
    found = []
    for indent, language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        found.append((language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)))
    return found


def on_ports(text: str, ports: dict[str, int]) -> str:
    """The example with free ports in the place of the usual ones."""
    for usual, port in ports.items():
        text = text.replace(f"127.0.0.1:{usual}", f"127.0.0.1:{port}")
    return text.replace("fake-impact &", f"fake-impact --port {ports['9099']} &")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_do_what_they_say(page: Path, tmp_path: Path, free_port: Callable[[], int]) -> None:
    """As one session of a shell that stops at the first failure."""
    ports = {usual: free_port() for usual in ("9090", "9091", "9092", "9099")}
    script, expected = [], []
    for language, text in blocks(page):
        if language == "sh":
            script.append(on_ports(text, ports) + f"\necho; echo {CUT}")
            expected.append([])
        elif language == "text" and expected:
            expected[-1] += [line.strip() for line in text.splitlines() if line.strip()]
    if not script:
        pytest.fail("a how-to without an example that is run")
    output = run_script("\n".join(script), tmp_path, ports)
    parts = output.split(f"{CUT}\n")

    assert len(parts) == len(script) + 1, output
    for part, lines in zip(parts, expected, strict=False):
        for line in lines:
            assert line in part, output


def run_script(script: str, folder: Path, ports: dict[str, int]) -> str:
    """What the session says; fails when a command of it fails."""
    work = folder / "clone"
    work.mkdir()
    shutil.copytree(ROOT / "tools", work / "tools")
    (work / "Makefile").write_text(".venv/.ready:\n\t@true\n", encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IMPACT_")}
    settings = {f"IMPACT_PLUGIN__SERVER__{name}": str(ports[usual]) for usual, name in PORTS.items()}
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # What a failing example leaves running would keep its output open.
    whole = f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-m", "-c", whole],
        cwd=work,
        env={**kept, **settings, "PATH": programs},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"not done within {SECONDS:.0f} s:\n{output}")
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_not_run_could_not_be(page: Path) -> None:
    """No example is kept from being run but for what no test can have."""
    for language, text in blocks(page):
        assert language in {"sh", "text", "console"}, text
        if language == "console":
            assert any(word in text for word in ELSEWHERE), text


def test_every_page_is_on_the_site() -> None:
    """A page that nobody finds helps nobody."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}

    assert [] == sorted(page for page in pages if page not in navigation)
