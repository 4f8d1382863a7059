"""The faults this package raises; outcomes of events are values, see :mod:`impact_transformers.outcome`."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # At run time it would load the whole core for `impact-plugin --version`.
    from impact_transformers.configuration import Problem


class ImpactPluginError(Exception):
    """Base of every fault of ours."""


class ManifestError(ImpactPluginError):
    """``manifest.json`` cannot be used."""


class SettingsError(ImpactPluginError):
    """Settings, sources or destinations cannot be used; ``problems`` has every mistake, its place and what to do."""

    def __init__(self, *problems: "Problem") -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class StateError(ImpactPluginError):
    """What is at ``path`` in the folder of the state cannot be used until the operator does something about it."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


class StateUnavailableError(ImpactPluginError):
    """Sessions, orders or spool cannot be reached or written now: nothing was done, and the caller must ask again.

    The message says why, without secrets. In contrast to :class:`StateError` it may pass by itself.
    """


class EnvelopeError(ImpactPluginError):
    """A router's request is not of the form its protocol prescribes."""
