"""Decides whether the service should get traffic, and whether it accepts events."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from impact_plugin.process.memory import MemoryWatch
from impact_plugin.process.shutdown import Shutdown
from impact_plugin.protocols.refusals import RefusalReason, RefusedError
from impact_plugin.sessions.sessions import Health


class Readiness:
    """Decides whether the service should get traffic, and gives the reasons if not.

    ``watches`` return the troubles of optional parts in words, "" if there are none.
    """

    def __init__(
        self,
        state_dir: Path,
        sessions: Health,
        shutdown: Shutdown,
        memory: MemoryWatch,
        watches: Sequence[Callable[[], str]],
    ) -> None:
        self._state_dir = state_dir
        self._sessions = sessions
        self._shutdown = shutdown
        self._memory = memory
        self._watches = watches

    def require_running(self) -> None:
        """Raise :class:`RefusedError` once the service is shutting down."""
        if self._shutdown.begun:
            raise RefusedError(RefusalReason.STOPPING, "the service is stopping", 1)

    def require_memory(self) -> None:
        """Raise :class:`RefusedError` while the process exceeds its memory limit."""
        if self._memory.exceeded:
            raise RefusedError(RefusalReason.MEMORY, "the process is above server.max_memory_mb", 5)

    def problems(self) -> list[str]:
        """Return the reasons not to send traffic now; empty when ready."""
        found = ["the service is stopping"] if self._shutdown.begun else []
        if not os.access(self._state_dir, os.W_OK | os.X_OK):
            found.append(f"the state folder {self._state_dir} is not writable")
        if self._sessions.down_since is not None and not self._sessions.alone:
            found.append(f"the session state is out of reach: {self._sessions.cause}")
        return found

    def troubles(self) -> list[str]:
        """Return what needs the operator's attention but does not prevent traffic."""
        found = [trouble for watch in (self._memory.trouble, *self._watches) if (trouble := watch())]
        if self._sessions.alone:
            found.append(f"clicks are decided without the session state: {self._sessions.cause}")
        return found
