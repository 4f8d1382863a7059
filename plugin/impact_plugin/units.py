"""Factors that convert the units of settings to seconds and bytes."""

from typing import Final

MIB: Final = 1024 * 1024
MINUTE_SECONDS: Final = 60.0
HOUR_SECONDS: Final = 60 * MINUTE_SECONDS
DAY_SECONDS: Final = 24 * HOUR_SECONDS
