"""The destination plugin between a self-hosted analytics router and impact.com."""

__version__ = "0.1.0"
