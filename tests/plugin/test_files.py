"""Files are written whole or not at all, whatever happens meanwhile, and private ones are their owner's alone."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from impact_plugin.files import replacing, write_whole

WRITER = """
import sys
from pathlib import Path
from impact_plugin.files import write_whole
path, number = Path(sys.argv[1]), 0
while True:
    number += 1
    write_whole(path, b"%d" % (number % 10) * 3_000_000)
    print(number, flush=True)
"""
"""Writes one digit three million times over, and then the next."""


def mode(path: Path) -> int:
    """Who may do what with the file."""
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    """What is in the folder."""
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("private", [False, True])
def test_the_new_content_takes_the_place_of_the_old(tmp_path: Path, *, private: bool) -> None:
    """And nothing else is left in the folder."""
    path = tmp_path / "file"
    for content in (b"first, and longer", b"second"):
        write_whole(path, content, private=private)

        assert content == path.read_bytes()
    assert ["file"] == names(tmp_path)


def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    """From its first byte on, also in the place of one that was not, and of what somebody else left."""
    path, unfinished = tmp_path / "file", tmp_path / "file.new"
    for left in (path, unfinished):
        left.write_bytes(b"for all to read")
        left.chmod(0o666)
    with replacing(path, private=True) as file:
        file.write(b"secret")
        file.flush()
        meanwhile = mode(unfinished)

    assert (0o600, 0o600) == (meanwhile, mode(path))


def test_another_file_has_the_usual_rights(tmp_path: Path) -> None:
    """Those that the umask leaves."""
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", b"content")
    finally:
        os.umask(before)

    assert 0o640 == mode(tmp_path / "file")


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    """A full disk or Ctrl-C: the file is as it was, and nothing is left of the try."""
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fail(_descriptor: int) -> None:
        raise fault

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(fault)):
        write_whole(path, b"new")

    assert b"old" == path.read_bytes()
    assert ["file"] == names(tmp_path)


def test_a_block_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    """What was written so far is thrown away."""
    path = tmp_path / "file"
    write_whole(path, b"old")

    def write(file: BinaryIO) -> None:
        file.write(b"half of the n")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"), replacing(path) as file:
        write(file)

    assert b"old" == path.read_bytes()
    assert ["file"] == names(tmp_path)


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    """Killed while it writes one version after the other; the next write takes away what is left of the last."""
    path = tmp_path / "file"
    for _ in range(5):
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
        found = path.read_bytes()

        assert found == found[:1] * 3_000_000
    write_whole(path, b"new")

    assert ["file"] == names(tmp_path)


def test_the_file_and_its_name_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content before the file gets its name, and then the folder, which holds the name."""
    synced: list[str] = []

    def sync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fsync", sync)
    write_whole(tmp_path / "file", b"content")

    assert ["file.new", tmp_path.name] == synced


def test_what_a_link_leads_to_is_replaced(tmp_path: Path) -> None:
    """The link stays."""
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", b"content")

    assert (tmp_path / "link").is_symlink()
    assert b"content" == (tmp_path / "file").read_bytes()


def test_a_pipe_is_written_as_it_is(tmp_path: Path) -> None:
    """So that a report can go to another program."""
    pipe, read = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, b"content")
    reader.join()

    assert [b"content"] == read
    assert ["pipe"] == names(tmp_path)
