"""Install what ``make`` needs into a virtual environment, and show how far it is.

Runs with the system's Python, before anything is installed: the standard library only. The locks name every package
with its hash; the plugin itself is installed in editable mode.
"""

import argparse
import re
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
OLDEST: Final = (3, 11)
PIP: Final = ("-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off")
FOUND: Final = re.compile(r"(?:Collecting|Requirement already satisfied:) (\S+?)==(\S+)")
"""What pip prints once for every package of a lock."""


def main() -> int:
    """Install the locks and the plugin; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", type=Path, help="folder of the virtual environment")
    parser.add_argument("locks", type=Path, nargs="+", help="files of requirements with hashes")
    options = parser.parse_args()
    if sys.version_info < OLDEST:
        print(f"impact-plugin needs Python 3.11 or newer, and this is {sys.version.split()[0]}: set PYTHON=")
        return 2
    began = time.monotonic()
    python = options.environment / "bin" / "python"
    if not python.exists():
        print(f"creating {options.environment} ...", flush=True)
        venv.create(options.environment, with_pip=True)
    requirements = [word for lock in options.locks for word in ("-r", str(lock))]
    packages = sum(lock.read_text(encoding="utf-8").count("==") for lock in options.locks)
    code = run_pip([str(python), *PIP, "--require-hashes", *requirements], packages)
    code = code or run_pip([str(python), *PIP, "--no-build-isolation", "--no-deps", "-e", str(ROOT)], 0)
    if code == 0:
        print(f"installed in {time.monotonic() - began:.0f} s", flush=True)
    return code


def run_pip(command: Sequence[str], packages: int) -> int:
    """Run pip and show each package as pip gets to it; when pip fails, show what it said."""
    said: list[str] = []
    found = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            said.append(line)
            if match := FOUND.match(line):
                found += 1
                show(f"[{found}/{packages}] {match[1]} {match[2]}")
            elif line.startswith("Installing collected packages"):
                show("unpacking ...", last=True)
    if process.returncode:
        print("".join(said[-30:]), file=sys.stderr)
    return process.returncode


def show(text: str, *, last: bool = False) -> None:
    """Print a line; on a terminal, in the place of the line before."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="\n" if last else "", flush=True)
    else:
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
