"""``impact-plugin explain``: show what becomes of each event, and why, without sending anything."""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from impact_plugin.cli.destinations import read_destinations
from impact_plugin.cli.errors import CommandError
from impact_plugin.cli.exit_codes import DONE, FAILED
from impact_plugin.cli.explain_views import Format, view
from impact_plugin.cli.faults import log_faults_once
from impact_plugin.cli.options import Config, Destination, Json, Quiet
from impact_plugin.cli.output import Advance, Output
from impact_plugin.config.destinations import destination_variables
from impact_plugin.config.settings import load_settings
from impact_plugin.delivery.endpoints import Endpoints
from impact_plugin.traffic.destinations import TrafficDestinations
from impact_plugin.traffic.reading import Traffic
from impact_plugin.traffic.replay import ReplayedEvent, ReplayRun, requests_of
from impact_transformers import Reject

PROGRESS_EVENTS: Final = 256
"""Events between two reports of progress."""


def explain(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    destination: Destination = None,
    order_id: str | None = None,
    format: Annotated[Format, Parameter(name=["--format", "-f"])] = "table",  # noqa: A002 - the option's name
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Show what becomes of each event: the request, where every parameter comes from, and why a click is one.

    The events count as the whole traffic, in their order: earlier ones decide about clicks and click ids of later ones.
    Nothing is sent.

    Exit code 0: every event shown is sent or filtered; 1: some are rejected, or none has the order id; 2: a file or an
    option cannot be used.

    ```sh
    impact-plugin explain event.json --destination destination.toml
    impact-plugin explain monday.ndjson.gz --order-id o-1042 --json
    ```

    Parameters
    ----------
    file
        Events as JSON, a JSON array, NDJSON, a recording, or a request body of rudder-server, also gzipped; `-` is
        standard input.
    destination
        A destination of --config by its name, or a file with its configuration, JSON or TOML. Without it the events go
        to all destinations of --config; without that, recordings and request bodies bring their own, and other events
        get a demonstration account.
    order_id
        Show only the events of this order; earlier events still decide about its click id.
    format
        A table to read, or curl commands to try by hand; they leave the token to you.
    json
        Print NDJSON, one JSON object for each event.
    """
    settings = load_settings(config, os.environ)
    traffic = Traffic([sys.stdin.buffer if file == "-" else Path(file)])
    traffic.whole = True
    destinations = TrafficDestinations(destination_variables(os.environ), read_destinations(destination, config))
    run = ReplayRun(destinations, log_faults_once(), explains=True)
    show = _silent if quiet else view(format, run, Endpoints(settings.impact), as_json=json)
    output = Output(quiet=quiet)
    rejected, of_order = False, []
    with _progress(output, traffic, order_id) as advance:
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
    _check_end(output, traffic, run, file)
    if order_id is not None and not of_order:
        output.warning(f"no event has the order id {order_id}")
    return FAILED if rejected or (order_id is not None and not of_order) else DONE


def _silent(_event: ReplayedEvent) -> None:
    """Show nothing."""


def _replayed(traffic: Traffic, run: ReplayRun, advance: Advance) -> Iterator[ReplayedEvent]:
    for first, request in requests_of(traffic, [run.destinations]):
        yield from run.feed(first, request)
        if first % PROGRESS_EVENTS < len(request):
            advance(traffic.done, f"{run.sums.received:,} events")


def _progress(output: Output, traffic: Traffic, order_id: str | None) -> AbstractContextManager[Advance]:
    """Progress on standard error; none if the events themselves scroll by on the terminal."""
    if order_id is None and sys.stdout.isatty():
        return nullcontext(lambda _done, _note="": None)
    return output.progress("explaining", traffic.total or None)


def _check_end(output: Output, traffic: Traffic, run: ReplayRun, file: str) -> None:
    """Warn of a file that is cut off; raises :class:`CommandError` for one without events."""
    for name in traffic.cut_off:
        if not run.sums.received:
            raise CommandError(f"{name}: cannot be read: it is cut off before its first event")
        output.warning(f"{name}: is cut off; everything up to there was explained")
    if not run.sums.received:
        raise CommandError(f"{file}: is empty; it must hold events as JSON")
