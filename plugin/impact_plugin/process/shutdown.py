"""The shutdown of the service, and the grace period for requests in progress."""

from collections.abc import Iterator
from contextlib import contextmanager

from anyio import CancelScope, current_time, move_on_after


class Shutdown:
    """Tracks whether the service is shutting down, and the rest of its grace period."""

    def __init__(self, grace_seconds: float) -> None:
        self.grace_seconds = grace_seconds
        self._deadline: float | None = None
        self._scopes: set[CancelScope] = set()

    @property
    def begun(self) -> bool:
        """Whether the service is shutting down."""
        return self._deadline is not None

    def begin(self) -> None:
        """Begin the shutdown: starts the grace period, and cancels the blocks of :meth:`cancels`."""
        if self._deadline is None:
            self._deadline = current_time() + self.grace_seconds
            for scope in self._scopes:
                scope.cancel()

    def seconds_left(self) -> float:
        """Return the rest of the grace period; all of it before the shutdown."""
        return self.grace_seconds if self._deadline is None else max(0.0, self._deadline - current_time())

    @contextmanager
    def cancels(self, seconds: float) -> Iterator[CancelScope]:
        """Cancel the block after ``seconds``, or when the shutdown begins."""
        with move_on_after(seconds) as scope:
            self._scopes.add(scope)
            if self.begun:
                scope.cancel()
            try:
                yield scope
            finally:
                self._scopes.discard(scope)
