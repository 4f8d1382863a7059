"""``make test`` on a machine without the servers it needs: it says what to do and fails; nothing is left out."""

import os
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "install_servers.py"


def run(path: str) -> subprocess.CompletedProcess[str]:
    """Run the tool where only the programs of that folder are found."""
    environment = os.environ | {"PATH": path}
    return subprocess.run([sys.executable, str(TOOL)], env=environment, capture_output=True, text=True, check=False)


def test_a_server_that_is_there_is_enough() -> None:
    """Nothing is installed, nothing is printed."""
    done = run(os.environ["PATH"])

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_without_a_package_manager_it_fails_and_says_what_to_install(tmp_path: Path) -> None:
    """A developer's machine that is no Debian."""
    done = run(str(tmp_path))

    assert done.returncode == 1
    assert "Install systemd-analyze by hand" in done.stderr


def test_a_failing_installation_is_a_failure(tmp_path: Path) -> None:
    """What apt-get said is shown."""
    fake = tmp_path / "apt-get"
    fake.write_text("#!/bin/sh\necho no such package >&2\nexit 100\n", encoding="utf-8")
    fake.chmod(0o755)
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\nshift\nexec "$@"\n', encoding="utf-8")
    sudo.chmod(0o755)
    (tmp_path / "sh").symlink_to("/bin/sh")
    done = run(str(tmp_path))

    assert done.returncode == 1
    assert "apt-get update failed" in done.stderr
    assert "no such package" in done.stderr
