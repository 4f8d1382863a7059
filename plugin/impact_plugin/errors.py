"""The faults this package raises; outcomes of events are values, see :mod:`impact_transformers.outcome`."""

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
    """The place where the session state is kept cannot be used; the message says what would do."""


class StateUnavailableError(ImpactPluginError):
    """The session state is out of reach and its grace period runs: the router is to come again."""


class EnvelopeError(ImpactPluginError):
    """A router's request is not of the form its protocol prescribes."""
