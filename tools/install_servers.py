"""Make sure that the programs of other projects are there which the tests run: servers, browsers, checkers.

Uses Debian's packages. Where that is not possible, says what to install and fails: a test that needs a program must not
be left out.
"""

import os
import shutil
import subprocess
import sys
from typing import Final

PROGRAMS: Final[dict[str, tuple[str, ...]]] = {
    "systemd": ("systemd-analyze",),
}
"""By package: the programs of which one must be there."""


def main() -> int:
    """Install what is missing; returns the exit code."""
    missing = [package for package, names in PROGRAMS.items() if not _there(names)]
    if not missing:
        return 0
    if shutil.which("apt-get") is None:
        return _fail("there is no apt-get here", missing)
    as_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    print(f"installing {', '.join(missing)} for the tests ...", flush=True)
    for words in (["update", "--quiet"], ["install", "--quiet", "--yes", "--no-install-recommends", *missing]):
        done = subprocess.run(
            [*as_root, "apt-get", *words], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            return _fail(f"apt-get {words[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}", missing)
    absent = [package for package in missing if not _there(PROGRAMS[package])]
    return _fail("the packages brought no such program", absent) if absent else 0


def _there(names: tuple[str, ...]) -> bool:
    return any(shutil.which(name) for name in names)


def _fail(cause: str, missing: list[str]) -> int:
    print(f"install_servers: {cause}", file=sys.stderr)
    wanted = ", ".join(" or ".join(PROGRAMS[package]) for package in missing)
    print(f"Install {wanted} by hand, then run make test again.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
