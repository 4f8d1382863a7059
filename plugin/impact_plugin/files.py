"""Lock files, private files, and atomic writes."""

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
    """Hold the lock file; the system releases the lock when the process ends for any reason.

    Raises :class:`StateError`: with the message ``taken`` if another process holds the lock, and what ``unusable``
    returns if the file cannot be opened.
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
    """Return whether a process holds the lock file; never creates it."""
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
    """Create a file that only its owner can read, unless it exists; raises OSError.

    Never opens an existing file: closing it would release every lock that SQLite holds on it in this process, and the
    next process that closes the database would delete the log that we still use.
    https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def write_whole(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file atomically, see :func:`replacing`; raises OSError. Blocks until the file is on disk."""
    with replacing(path, private=private) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Yield a new file that replaces the one at ``path`` when the block ends and the file is on disk.

    If the block, the process or the power fails, the old content stays; there is never partial content. Only the owner
    can read and write a ``private`` file, even if the old one was less strict. Pipes and devices such as /dev/stdout
    cannot be replaced, and are written directly. Raises OSError.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    # Replace the target of a symbolic link, not the link.
    target = path.resolve()
    unfinished = target.with_name(f"{target.name}.new")
    # A killed process may have left one, with other permissions or another owner.
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
    """Flush the folder's entries to disk: otherwise a power failure could bring the old file back."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
