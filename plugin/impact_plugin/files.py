"""Files: held by one process, private, written whole or not at all."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias

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


def write_whole(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file whole or not at all, see :func:`replacing`; raises OSError. Blocks until the disk has it."""
    with replacing(path, private=private) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Lend a new file that takes the place of the one at ``path`` when the block ends, and not before it is on disk.

    Whatever happens to the block, the process or the power, the old content or the new one is there, never a part. A
    ``private`` file is readable and writable for its owner only, also where the one before was not. What cannot be
    replaced, a pipe or a device such as /dev/stdout, is written as it is. Raises OSError.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    # Of a symbolic link, what it leads to.
    target = path.resolve()
    unfinished = target.with_name(f"{target.name}.new")
    # Left by a process that was killed; of other modes, or somebody else's.
    unfinished.unlink(missing_ok=True)
    opened = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
    try:
        with os.fdopen(opened, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Bring what the folder's files are called to disk: else a power cut could bring the old one back."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
