"""The process: its start and end, its workers, and what it uses."""

from impact_plugin.telemetry.event import TelemetryEvent
from impact_plugin.telemetry.metric import counter, gauge, histogram

OVER_MEMORY = gauge(
    "impact_plugin_over_memory", "1 while events are refused because the process exceeds its memory ceiling, else 0."
)


class ServiceStarted(TelemetryEvent, frozen=True):
    """The service accepts requests."""

    level = "info"
    metrics = (
        gauge(
            "impact_plugin_worker_restarts",
            "How often the supervisor replaced this worker because it had ended unexpectedly.",
        ).set("restarts"),
    )

    url: str
    operator_url: str
    ingest_url: str
    version: str
    restarts: int


class ServiceStopping(TelemetryEvent, frozen=True):
    """The service no longer accepts requests; it finishes those in flight within ``grace_seconds``."""

    level = "info"

    grace_seconds: float


class SupervisorStarted(TelemetryEvent, frozen=True):
    """The supervisor has opened the ports and starts its workers."""

    level = "info"

    url: str
    workers: int


class WorkerStarted(TelemetryEvent, frozen=True):
    """The supervisor started a worker; ``restarts`` counts its predecessors that ended unexpectedly."""

    level = "info"

    worker: int
    pid: int
    restarts: int


class WorkerEnded(TelemetryEvent, frozen=True):
    """A worker ended unexpectedly and is replaced at once; ``cause`` is the signal or its exit code."""

    level = "error"

    worker: int
    pid: int
    cause: str
    seconds: float


class WorkerReplaced(TelemetryEvent, frozen=True):
    """After SIGHUP, a new process with the present code and settings took over from a worker."""

    level = "info"

    worker: int
    old_pid: int
    pid: int


class WorkerNotReplaced(TelemetryEvent, frozen=True):
    """After SIGHUP, the new process could not start; the old one keeps serving, without your changes."""

    level = "error"

    worker: int
    pid: int
    cause: str


class ProcessMeasured(TelemetryEvent, frozen=True):
    """The resources of this process, measured once a second; 0 for what the operating system does not report.

    ``cpu_seconds`` is the processor time since the last measurement, ``ceiling`` 0 for no limit, and ``loop_lag`` how
    late the event loop ran, in seconds.
    """

    metrics = (
        gauge("impact_plugin_memory_bytes", "Resident memory of the process, in bytes.").set("bytes"),
        gauge(
            "impact_plugin_memory_ceiling_bytes",
            "Memory above which events are refused (server.max_memory_mb), in bytes; 0 for no limit.",
        ).set("ceiling"),
        gauge(
            "process_resident_memory_bytes", "The same as impact_plugin_memory_bytes, under its conventional name."
        ).set("bytes"),
        counter("process_cpu_seconds", "CPU time of the process, in seconds; 1 a second is one whole core.").inc(
            "cpu_seconds"
        ),
        gauge("process_open_fds", "Open file descriptors.").set("descriptors"),
        gauge("process_max_fds", "Maximum number of open file descriptors; alert at 80 %.").set("descriptors_limit"),
        histogram(
            "impact_plugin_loop_lag_seconds", "How late the event loop ran, measured once a second, in seconds."
        ).observe("loop_lag"),
    )

    bytes: int
    ceiling: int
    descriptors: int
    descriptors_limit: int
    cpu_seconds: float
    loop_lag: float


class MemoryExceeded(TelemetryEvent, frozen=True):
    """The process uses more memory than ``server.max_memory_mb``: it refuses events, and their senders keep them."""

    level = "error"
    metrics = (OVER_MEMORY.set(1),)

    bytes: int
    ceiling: int


class MemoryRecovered(TelemetryEvent, frozen=True):
    """The process is below its memory ceiling again and accepts events."""

    level = "warning"
    metrics = (OVER_MEMORY.set(0),)

    bytes: int
    seconds: float
