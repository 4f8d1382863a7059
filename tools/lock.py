"""Resolve the dependencies of pyproject.toml into requirements/*.lock: exact versions with hashes, no addresses."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

LOCKS = {
    "requirements/dev.lock": ["pyproject.toml", "--group", "dev"],
    # What is run and shipped has the versions that were tested.
    "requirements/runtime.lock": ["pyproject.toml", "-c", "requirements/dev.lock"],
    "requirements/build.lock": ["--group", "build", "-c", "requirements/dev.lock"],
}


def main() -> None:
    """Write each lock anew."""
    for lock, inputs in LOCKS.items():
        command = [sys.executable, "-m", "uv", "pip", "compile", *inputs, "--output-file", lock]
        options = ["--generate-hashes", "--universal", "--python-version", "3.11", "--upgrade", "--quiet"]
        note = ["--custom-compile-command", "make lock"]
        subprocess.run([*command, *options, *note], cwd=ROOT, check=True)
        print(f"wrote {lock}")


if __name__ == "__main__":
    main()
