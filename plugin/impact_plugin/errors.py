"""The faults this package raises; outcomes of events are values, see :mod:`impact_transformers.outcome`."""


class ImpactPluginError(Exception):
    """Base of every fault of ours."""


class ManifestError(ImpactPluginError):
    """``manifest.json`` cannot be used."""


class SettingsError(ImpactPluginError):
    """A setting cannot be used; the message names it and what would do."""


class StateError(ImpactPluginError):
    """The place where the session state is kept cannot be used; the message says what would do."""


class StateUnavailableError(ImpactPluginError):
    """The session state is out of reach and its grace period runs: the router is to come again."""


class EnvelopeError(ImpactPluginError):
    """A router's request is not of the form its protocol prescribes."""
