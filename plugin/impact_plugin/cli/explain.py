"""``impact-plugin explain``: what becomes of events, and why, without sending anything."""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from impact_plugin.cli.explain_views import Format, view
from impact_plugin.cli.faults import log_faults_once
from impact_plugin.cli.inputs import InputError, read_destinations
from impact_plugin.cli.output import Advance, Output
from impact_plugin.config.destinations import destination_variables
from impact_plugin.config.settings import load_settings
from impact_plugin.delivery.endpoints import Endpoints
from impact_plugin.traffic.destinations import TrafficDestinations
from impact_plugin.traffic.reading import Traffic
from impact_plugin.traffic.replay import ReplayedEvent, ReplayRun, requests_of
from impact_transformers import Reject

FAILED: Final = 1
PROGRESS_EVENTS: Final = 256
"""Events between two reports of progress."""


def explain(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    destination: Annotated[Path | None, Parameter(name=["--destination", "-d"])] = None,
    order_id: str | None = None,
    format: Annotated[Format, Parameter(name=["--format", "-f"])] = "table",  # noqa: A002 - the option's name
    config: Path | None = None,
) -> int:
    """Show the request that each event becomes, where every parameter came from, and why a click is one.

    The events are taken as the whole traffic, in order: earlier ones decide about clicks and click ids of later ones.

    Exit code 0: every event shown became a request or was filtered; 1: at least one was rejected, or no event has the
    order id; 2: nothing could be read.

    Parameters
    ----------
    file
        Events as JSON, a JSON array, one JSON object a line, a recording, or a body that rudder-server sent; may be
        gzipped; - is standard input.
    destination
        Where the events go: a destination's configuration (JSON or TOML), or the service's TOML file with its
        destinations. Without it, recordings and bodies bring their own, and others get a demonstration account.
    order_id
        Show only the events of this order; earlier events still decide about its click id.
    format
        table to read, json to process, curl to try by hand (the token is left to you).
    config
        TOML file with the service's settings, for the addresses of impact.com.
    """
    settings = load_settings(config, os.environ)
    traffic = Traffic([sys.stdin.buffer if file == "-" else Path(file)])
    traffic.whole = True
    destinations = TrafficDestinations(destination_variables(os.environ), read_destinations(destination))
    run = ReplayRun(destinations, log_faults_once(), explains=True)
    show = view(format, run, Endpoints(settings.impact))
    rejected, of_order = False, []
    with _progress(traffic, order_id) as advance:
        for one in _replayed(traffic, run, advance):
            if order_id is None:
                show(one)
            elif one.is_order(order_id):
                of_order.append(one)
            else:
                continue
            rejected |= isinstance(one.outcome, Reject)
    for one in of_order:
        show(one)
    _check_end(traffic, run, file)
    if order_id is not None and not of_order:
        print(f"impact-plugin: no event has the order id {order_id}", file=sys.stderr)
    return FAILED if rejected or (order_id is not None and not of_order) else 0


def _replayed(traffic: Traffic, run: ReplayRun, advance: Advance) -> Iterator[ReplayedEvent]:
    for first, request in requests_of(traffic, [run.destinations]):
        yield from run.feed(first, request)
        if first % PROGRESS_EVENTS < len(request):
            advance(traffic.done, f"{run.sums.received:,} events")


def _progress(traffic: Traffic, order_id: str | None) -> AbstractContextManager[Advance]:
    """Progress on standard error; none where the events themselves scroll by on the terminal."""
    if order_id is None and sys.stdout.isatty():
        return nullcontext(lambda _done, _note="": None)
    return Output().progress("explaining", traffic.total or None)


def _check_end(traffic: Traffic, run: ReplayRun, file: str) -> None:
    """Whether the file held events, and all that it should; raises :class:`InputError` where it held none."""
    for name in traffic.cut_off:
        if not run.sums.received:
            raise InputError(f"{name}: cannot be read: it is cut off before its first event")
        print(f"impact-plugin: {name}: is cut off; what can be read of it was explained", file=sys.stderr)
    if not run.sums.received:
        raise InputError(f"{file}: the input is empty; give it events as JSON")
