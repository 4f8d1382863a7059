"""The one exception of commands."""

from impact_plugin.errors import ImpactPluginError


class CommandError(ImpactPluginError):
    """An option, a file or a service cannot be used; the message names it, says why, and how to fix it."""
