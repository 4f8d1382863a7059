"""The Grafana board, written as rows of panels; ``make docs`` writes ``deploy/grafana/impact-plugin.json`` from it."""

import json
from collections.abc import Sequence
from typing import Any, Final

COLUMNS: Final = 24
HEIGHT: Final = 8
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
WHERE: Final = 'instance=~"$instance"'

Query = tuple[str, str]
Panel = tuple[str, str, str, Sequence[Query]]


def rate(metric: str, by: str, selector: str = "") -> str:
    """How often something is counted in a second, by a label."""
    return f"sum by ({by}) (rate({metric}{{{WHERE}{selector}}}[$__rate_interval]))"


def gauge(metric: str, by: str, selector: str = "") -> str:
    """The present value, by a label."""
    return f"sum by ({by}) ({metric}{{{WHERE}{selector}}})"


def quantile(share: float, metric: str, by: str) -> str:
    """A percentile of a histogram, by a label."""
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', f'le, {by}')})"


ROWS: Final[Sequence[tuple[str, Sequence[Panel]]]] = (
    (
        "Events",
        (
            (
                "What events become",
                "Requests by endpoint path, and what was skipped or rejected.",
                "reqps",
                [(rate("impact_plugin_events_total", "outcome"), "{{outcome}}")],
            ),
            (
                "Why not",
                "Skipped and rejected events by reason; docs/reference/reasons.md has the fix of each.",
                "reqps",
                [(rate("impact_plugin_events_total", "reason", ', reason!=""'), "{{reason}}")],
            ),
            (
                "Clicks",
                "Candidates by decision: new ones are unique clicks.",
                "reqps",
                [(rate("impact_plugin_click_decisions_total", "decision"), "{{decision}}")],
            ),
            (
                "Orders by their click id",
                "Carried by the event, stitched from an earlier click, or without: those may not be attributed.",
                "reqps",
                [
                    (rate("impact_plugin_orders_total", "click_id"), "{{click_id}}"),
                    (rate("impact_plugin_late_clicks_total", "instance"), "{{instance}} click id came too late"),
                ],
            ),
            (
                "Time to transform a batch",
                "By the router's protocol; the state's share of it beside.",
                "s",
                [
                    (quantile(0.5, "impact_plugin_batch_seconds", "protocol"), "{{protocol}} p50"),
                    (quantile(0.99, "impact_plugin_batch_seconds", "protocol"), "{{protocol}} p99"),
                    (quantile(0.99, "impact_plugin_state_seconds", "instance"), "{{instance}} state p99"),
                ],
            ),
            (
                "Events in a batch",
                "Small batches cost most.",
                "short",
                [(quantile(0.5, "impact_plugin_batch_events", "protocol"), "{{protocol}} p50")],
            ),
        ),
    ),
    (
        "Delivery",
        (
            (
                "Deliveries",
                "What became of them; retry is told to the router as 429.",
                "reqps",
                [(rate("impact_plugin_deliveries_total", "result, cause"), "{{result}} {{cause}}")],
            ),
            (
                "Requests to impact.com",
                "By what came back.",
                "reqps",
                [(rate("impact_plugin_attempts_total", "endpoint_path, cause"), "{{endpoint_path}} {{cause}}")],
            ),
            (
                "Time",
                "Of one request to impact.com, and of a delivery with all its waiting.",
                "s",
                [
                    (quantile(0.5, "impact_plugin_attempt_seconds", "endpoint_path"), "request {{endpoint_path}} p50"),
                    (quantile(0.99, "impact_plugin_attempt_seconds", "endpoint_path"), "request {{endpoint_path}} p99"),
                    (
                        quantile(0.5, "impact_plugin_delivery_seconds", "endpoint_path"),
                        "delivery {{endpoint_path}} p50",
                    ),
                    (
                        quantile(0.99, "impact_plugin_delivery_seconds", "endpoint_path"),
                        "delivery {{endpoint_path}} p99",
                    ),
                ],
            ),
            (
                "Waiting and under way",
                "What waits for leave to be sent, and what is at impact.com.",
                "short",
                [
                    (gauge("impact_plugin_delivery_waiting", "endpoint_path"), "{{endpoint_path}} waiting"),
                    (gauge("impact_plugin_delivery_in_flight", "endpoint_path"), "{{endpoint_path}} under way"),
                ],
            ),
            (
                "Accounts by state",
                "Closed ones get nothing; /debug/limits says why.",
                "short",
                [(gauge("impact_plugin_delivery_accounts", "endpoint_path, state"), "{{endpoint_path}} {{state}}")],
            ),
            (
                "Limits that changed",
                "Breakers, quotas and credentials of accounts; the log line limit_changed names the account.",
                "reqps",
                [(rate("impact_plugin_limit_changes_total", "endpoint_path, change"), "{{endpoint_path}} {{change}}")],
            ),
        ),
    ),
    (
        "State and ledger",
        (
            (
                "Ledger of conversions",
                "Orders in it against its room, and those whose outcome is not known.",
                "short",
                [
                    (gauge("impact_plugin_ledger_orders", "instance"), "{{instance}} orders"),
                    (gauge("impact_plugin_ledger_capacity", "instance"), "{{instance}} room"),
                    (gauge("impact_plugin_ledger_unsettled", "instance"), "{{instance}} not settled"),
                ],
            ),
            (
                "How full the session state is",
                "Entries against their room, by kind.",
                "percentunit",
                [
                    (
                        " / ".join(gauge(f"impact_plugin_state_{part}", "kind") for part in ("entries", "capacity")),
                        "{{kind}}",
                    )
                ],
            ),
            (
                "Up",
                "1 while session state, ledger and spool answer.",
                "short",
                [
                    (gauge("impact_plugin_state_up", "instance"), "{{instance}} sessions"),
                    (gauge("impact_plugin_ledger_up", "instance"), "{{instance}} ledger"),
                    (gauge("impact_plugin_spool_up", "instance"), "{{instance}} spool"),
                ],
            ),
        ),
    ),
    (
        "Ingest and spool",
        (
            (
                "Events of senders",
                "By source and what became of them at the door.",
                "reqps",
                [(rate("impact_plugin_ingested_events_total", "source, status"), "{{source}} {{status}}")],
            ),
            (
                "Answers to senders",
                "By status; 429 and 503 come again.",
                "reqps",
                [(rate("impact_plugin_ingest_answers_total", "surface, status"), "{{surface}} {{status}}")],
            ),
            (
                "Time to answer a sender",
                "Jitsu gives up after two seconds.",
                "s",
                [(quantile(0.99, "impact_plugin_ingest_seconds", "surface"), "{{surface}} p99")],
            ),
            (
                "Waiting events",
                "Stored and not delivered yet, by destination.",
                "short",
                [(gauge("impact_plugin_spool_waiting", "destination"), "{{destination}}")],
            ),
            (
                "How full the spool is",
                "Bytes of the stored events against their room; senders are answered 429 when it is full.",
                "bytes",
                [
                    (gauge("impact_plugin_spool_bytes", "instance"), "{{instance}} stored"),
                    (gauge("impact_plugin_spool_capacity", "instance", ', of="bytes"'), "{{instance}} room"),
                ],
            ),
            (
                "Age of the oldest waiting event",
                "What waits for long is named by /debug/limits.",
                "s",
                [(gauge("impact_plugin_spool_oldest_seconds", "instance"), "{{instance}}")],
            ),
            (
                "Tries of stored events",
                "Delivered, skipped, later, or dead.",
                "reqps",
                [(rate("impact_plugin_spool_ended_total", "result"), "{{result}}")],
            ),
            (
                "Dead letters",
                "impact-plugin dead-letters list",
                "short",
                [(gauge("impact_plugin_spool_dead_letters", "instance"), "{{instance}}")],
            ),
        ),
    ),
    (
        "Sidecar and process",
        (
            (
                "Passed to the stock transformer",
                "By the class of its answer.",
                "reqps",
                [(rate("impact_plugin_passed_through_total", "status"), "{{status}}")],
            ),
            (
                "Requests of the router",
                "By route and status; other is the stock transformer's.",
                "reqps",
                [(rate("transformer_http_request_duration_count", "route, code"), "{{route}} {{code}}")],
            ),
            (
                "Refused, and kept by the router",
                "By reason; docs/troubleshooting.md says what to do.",
                "reqps",
                [(rate("impact_plugin_refused_requests_total", "reason"), "{{reason}}")],
            ),
            (
                "Memory",
                "Resident, against the ceiling above which events are refused.",
                "bytes",
                [
                    (gauge("impact_plugin_memory_bytes", "instance"), "{{instance}}"),
                    (gauge("impact_plugin_memory_ceiling_bytes", "instance"), "{{instance}} ceiling"),
                ],
            ),
            (
                "Workers replaced",
                "Because they had ended by themselves.",
                "short",
                [(gauge("impact_plugin_worker_restarts", "instance"), "{{instance}}")],
            ),
            (
                "Event loop",
                "How late it is; above 0.1 s the process has too much to do.",
                "s",
                [(quantile(0.99, "impact_plugin_loop_lag_seconds", "instance"), "{{instance}} p99")],
            ),
            (
                "Processor",
                "Cores in use; one worker cannot use more than one and a little.",
                "short",
                [(rate("process_cpu_seconds_total", "instance"), "{{instance}}")],
            ),
            (
                "Under way",
                "Requests of the router, and open file descriptors against how many there may be.",
                "short",
                [
                    (gauge("transformer_http_concurrent_requests", "instance"), "{{instance}} requests"),
                    (gauge("process_open_fds", "instance"), "{{instance}} descriptors"),
                    (gauge("process_max_fds", "instance"), "{{instance}} descriptors, at most"),
                ],
            ),
            (
                "Version",
                "What runs; two at once during a rolling replacement.",
                "short",
                [(gauge("impact_plugin_build_info", "version"), "{{version}}")],
            ),
        ),
    ),
)


def board() -> str:
    """The dashboard as JSON."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        panels.append(_row(title, top, len(panels) + 1))
        top += 1
        for place, panel in enumerate(row):
            x, y = place % 3 * (COLUMNS // 3), top + place // 3 * HEIGHT
            panels.append(_panel(panel, {"x": x, "y": y, "w": COLUMNS // 3, "h": HEIGHT}, len(panels) + 1))
        top += -(-len(row) // 3) * HEIGHT
    return f"{json.dumps(_dashboard(panels), indent=2)}\n"


def _row(title: str, top: int, number: int) -> dict[str, Any]:
    place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(panel: Panel, place: dict[str, int], number: int) -> dict[str, Any]:
    title, description, unit, queries = panel
    targets = [
        {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": legend}
        for index, (query, legend) in enumerate(queries)
    ]
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def _dashboard(panels: list[dict[str, Any]]) -> dict[str, Any]:
    instance = {
        "name": "instance",
        "label": "Instance",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": "label_values(impact_plugin_build_info, instance)", "refId": "instance"},
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }
    datasource = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    return {
        "uid": "impact-plugin",
        "title": "impact-plugin",
        "tags": ["impact.com", "rudderstack"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [datasource, instance]},
        "panels": panels,
    }
