"""What the files of the state have in common: one process holds them, how safe a commit is, and that none is half."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, TypeAlias

from impact_plugin.errors import StateError

Durability: TypeAlias = Literal["power", "process"]
SYNCHRONOUS: Final[dict[Durability, str]] = {"power": "FULL", "process": "NORMAL"}


@contextmanager
def hold_file(path: Path, unusable: Callable[[Path, Exception], StateError], taken: str) -> Iterator[None]:
    """Hold the lock file; the system lets go of it when the process dies, however it does.

    Raises :class:`StateError`: with ``taken``, where another process holds it; as ``unusable`` says, where it cannot be
    opened.
    """
    try:
        opened = path.open("a", encoding="utf-8")
    except OSError as error:
        raise unusable(path, error) from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(path.parent, taken) from None
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds the lock file; where there is none, none is made."""
    if not path.exists():
        return False
    try:
        with path.open("a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        raise StateError(path, f"cannot be opened: {error.strerror}") from error
    return False


def make_private(path: Path) -> None:
    """Make a file that only its owner reads, where there is none; raises OSError.

    A file that is there is not even opened: closing it would let go of every lock that SQLite holds on it in this
    process, and the next process that closes the database would take its log away from under us.
    https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, whatever happens to the process or the power; raises OSError."""
    partial = path.with_name(f"{path.name}.new")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
