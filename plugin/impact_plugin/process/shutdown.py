"""The end of a service: what takes nothing new from then on, and how long what is under way may go on."""

from collections.abc import Iterator
from contextlib import contextmanager

from anyio import CancelScope, current_time, move_on_after


class Shutdown:
    """Whether the service is stopping, and how much of its grace period is left."""

    def __init__(self, grace_seconds: float) -> None:
        self.grace_seconds = grace_seconds
        self._deadline: float | None = None
        self._scopes: set[CancelScope] = set()

    @property
    def begun(self) -> bool:
        """Whether the service is stopping."""
        return self._deadline is not None

    def begin(self) -> None:
        """Stop: the grace period begins, and the blocks of :meth:`cancels` end."""
        if self._deadline is None:
            self._deadline = current_time() + self.grace_seconds
            for scope in self._scopes:
                scope.cancel()

    def seconds_left(self) -> float:
        """What is left of the grace period; all of it before it begins."""
        return self.grace_seconds if self._deadline is None else max(0.0, self._deadline - current_time())

    @contextmanager
    def cancels(self, seconds: float) -> Iterator[CancelScope]:
        """Cancel the block after ``seconds``, or as soon as the service is stopping; the scope tells whether it was."""
        with move_on_after(seconds) as scope:
            self._scopes.add(scope)
            if self.begun:
                scope.cancel()
            try:
                yield scope
            finally:
                self._scopes.discard(scope)
