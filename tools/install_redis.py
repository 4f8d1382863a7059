"""Make sure that a Redis or Valkey server is there for the tests: they start it themselves, on a socket of their own.

Uses Debian's packages. Where that is not possible, says what to install and fails: a test that needs a server must not
be left out.
"""

import os
import shutil
import subprocess
import sys
from typing import Final

SERVERS: Final = ("redis-server", "valkey-server")
PACKAGE: Final = "redis-server"


def main() -> int:
    """Install the server unless there is one; returns the exit code."""
    if any(shutil.which(name) for name in SERVERS):
        return 0
    if shutil.which("apt-get") is None:
        return _fail("there is no apt-get here")
    as_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    print(f"installing {PACKAGE} for the tests ...", flush=True)
    for words in (["update", "--quiet"], ["install", "--quiet", "--yes", "--no-install-recommends", PACKAGE]):
        done = subprocess.run(
            [*as_root, "apt-get", *words], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            return _fail(f"apt-get {words[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return 0 if shutil.which(PACKAGE) else _fail("the package brought no server")


def _fail(cause: str) -> int:
    print(f"install_redis: {cause}", file=sys.stderr)
    print(f"Install {' or '.join(SERVERS)} by hand, then run make test again.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
