"""Which dead letters a command is about, as given on the command line."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

from cyclopts import Parameter

from impact_plugin.cli.errors import CommandError
from impact_plugin.cli.options import Config, Destination
from impact_plugin.spool.base import DeadLetterFilter

UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGE: Final = re.compile(r"(\d{1,6})([smhdw])")


@Parameter(name="*")
@dataclass(frozen=True)
class Filters:
    """Options that select dead letters; a dead letter must match all of them."""

    reason: Annotated[str | None, Parameter(help="Only this reason, refused for instance.")] = None
    source: Annotated[str | None, Parameter(help="Only from the source of this name.")] = None
    destination: Annotated[Destination, Parameter(help="Only for the destination of this name.")] = None
    order_id: Annotated[str | None, Parameter(help="Only about this order.")] = None
    since: Annotated[
        str | None,
        Parameter(help="Only rejected since: a time, 2026-09-10T10:00:00Z (UTC by default), or an age, 30m, 2h, 3d."),
    ] = None
    until: Annotated[str | None, Parameter(help="Only rejected before, in the same forms.")] = None
    config: Config = None

    def select(self, numbers: tuple[int, ...], now: float) -> DeadLetterFilter:
        """Combine the options with numbers, if there are any; ``now``, in seconds since 1970, is where ages count from.

        Raises :class:`CommandError` for a time in another form.
        """
        return DeadLetterFilter(
            numbers or None,
            self.reason,
            self.source,
            self.destination,
            self.order_id,
            None if self.since is None else _milliseconds("--since", self.since, now),
            None if self.until is None else _milliseconds("--until", self.until, now),
        )

    def select_explicitly(self, numbers: tuple[int, ...], now: float, *, every: bool) -> DeadLetterFilter:
        """Combine as :meth:`select` does, for a command that changes something: to select all takes ``--all``.

        Raises :class:`CommandError`.
        """
        selected = self.select(numbers, now)
        is_empty = selected == DeadLetterFilter()
        if is_empty and not every:
            raise CommandError("NUMBERS: name dead letters by numbers or filters, or all of them with --all")
        if every and not is_empty:
            raise CommandError("--all: cannot be combined with numbers and filters")
        return selected


NO_FILTERS: Final = Filters()


def _milliseconds(option: str, text: str, now: float) -> int:
    """Milliseconds since 1970 of a time or an age."""
    age = _AGE.fullmatch(text.strip().lower())
    if age is not None:
        return int((now - int(age[1]) * UNIT_SECONDS[age[2]]) * 1000)
    try:
        moment = datetime.fromisoformat(text.strip())
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise CommandError(f"{option}: must be a time such as 2026-09-10T10:00:00Z, or an age such as 2h") from None
