"""``make run`` and ``make test`` on a fresh machine: how far the installation is, and what went wrong with it."""

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "install.py"
GOOD = """#!/bin/sh
case "$*" in *-e*) exit 0;; esac
echo "Collecting aiohttp==3.14.5 (from -r requirements/runtime.lock (line 9))"
echo "  Downloading aiohttp-3.14.5-cp311-cp311-manylinux.whl (1.8 MB)"
echo "Requirement already satisfied: rich==15.0.0 in ./.venv/lib (from -r requirements/runtime.lock (line 99))"
echo "Installing collected packages: aiohttp, rich"
"""
BAD = """#!/bin/sh
echo "Collecting aiohttp==3.14.5 (from -r requirements/runtime.lock (line 9))"
echo "ERROR: no connection to the index" >&2
exit 7
"""


def install(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run the tool in an environment whose Python is that program in the place of pip."""
    lock = folder / "some.lock"
    lock.write_text(
        "aiohttp==3.14.5 \\\n    --hash=sha256:00\nrich==15.0.0 \\\n    --hash=sha256:00\n", encoding="utf-8"
    )
    python = folder / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(program, encoding="utf-8")
    python.chmod(0o755)
    command = [sys.executable, str(TOOL), str(folder / "environment"), str(lock)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_each_package_is_shown_as_it_comes(tmp_path: Path) -> None:
    """One line for each where there is no terminal, and how many there are."""
    done = install(tmp_path, GOOD)

    assert done.returncode == 0
    assert ["[1/2] aiohttp 3.14.5", "[2/2] rich 15.0.0", "unpacking ..."] == done.stdout.splitlines()[:3]
    assert done.stdout.splitlines()[-1].startswith("installed in ")


def test_a_failure_shows_what_pip_said(tmp_path: Path) -> None:
    """The exit code is pip's, so make does not take the environment for a good one."""
    done = install(tmp_path, BAD)

    assert done.returncode == 7
    assert "ERROR: no connection to the index" in done.stderr
    assert "installed in" not in done.stdout
