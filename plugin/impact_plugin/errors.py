"""The exceptions of this package; outcomes of events are values, see :mod:`impact_transformers.outcome`."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # At run time the import would load the whole core for `impact-plugin --version`.
    from impact_transformers.configuration import Problem


class ImpactPluginError(Exception):
    """Base class of all exceptions of this package."""


class ManifestError(ImpactPluginError):
    """``manifest.json`` is invalid."""


class SettingsError(ImpactPluginError):
    """Settings, sources or destinations are invalid; ``problems`` lists each problem, its location and fix."""

    def __init__(self, *problems: "Problem") -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class StateError(ImpactPluginError):
    """The file or folder at ``path`` in the state folder is unusable until the operator fixes it."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


class StateUnavailableError(ImpactPluginError):
    """Sessions, orders or spool are unavailable: nothing was done, and the caller must retry.

    The message gives the cause, without secrets. Unlike :class:`StateError` it may resolve itself.
    """


class EnvelopeError(ImpactPluginError):
    """The body of a request does not follow its protocol."""
