"""Everything the service reports, one Struct a fact. The docstring of each is its entry in the documentation."""

from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

import msgspec


class ServiceStarted(msgspec.Struct, frozen=True, tag=True):
    """The service listens."""

    url: str
    operator_url: str
    ingest_url: str
    version: str
    restarts: int


class ServiceStopping(msgspec.Struct, frozen=True, tag=True):
    """The service no longer takes requests and finishes those under way."""

    grace_seconds: float


class SupervisorStarted(msgspec.Struct, frozen=True, tag=True):
    """The supervisor holds the ports and starts its workers."""

    url: str
    workers: int


class WorkerStarted(msgspec.Struct, frozen=True, tag=True):
    """The supervisor started a worker; ``restarts`` counts those in its place that had ended by themselves."""

    worker: int
    pid: int
    restarts: int


class WorkerEnded(msgspec.Struct, frozen=True, tag=True):
    """A worker ended by itself and is replaced at once; ``cause`` is a signal or its exit code."""

    worker: int
    pid: int
    cause: str
    seconds: float


class WorkerReplaced(msgspec.Struct, frozen=True, tag=True):
    """A new process with code and settings of now took a worker's place, as SIGHUP asked for."""

    worker: int
    old_pid: int
    pid: int


class WorkerNotReplaced(msgspec.Struct, frozen=True, tag=True):
    """The new process could not start, so the old one stays: what was changed for it is not in force."""

    worker: int
    pid: int
    cause: str


class ProcessMeasured(msgspec.Struct, frozen=True, tag=True):
    """What this process holds and uses, once a second; 0 for what the system does not tell.

    Resident memory and its ceiling (0 for none), file descriptors and how many there may be, processor time since the
    last look, and how late the event loop is.
    """

    bytes: int
    ceiling: int
    descriptors: int
    descriptors_limit: int
    cpu_seconds: float
    loop_lag: float


class MemoryExceeded(msgspec.Struct, frozen=True, tag=True):
    """The process holds more memory than ``server.max_memory_mb``: events are refused, and their senders keep them."""

    bytes: int
    ceiling: int


class MemoryRecovered(msgspec.Struct, frozen=True, tag=True):
    """The process is below its ceiling again and takes events."""

    bytes: int
    seconds: float


class RecordingStarted(msgspec.Struct, frozen=True, tag=True):
    """Somebody records what the service is asked, without persons; ``to`` is a file, or the operator's connection."""

    to: str
    seconds: float
    max_bytes: int


class RecordingEnded(msgspec.Struct, frozen=True, tag=True):
    """The recording ended; events that came too fast to be written down were left out of it."""

    to: str
    bytes: int
    left_out: int
    cause: str


class BatchTransformed(msgspec.Struct, frozen=True, tag=True):
    """A batch was transformed. One line a batch, never one an event."""

    protocol: Literal["processor", "router"]
    events: int
    outcomes: Counter[tuple[str, str, str]]
    notices: Counter[str]
    seconds: float
    bytes_in: int
    bytes_out: int


class TransformFault(msgspec.Struct, frozen=True, tag=True):
    """A defect of ours met an event; the event is rejected with the reason ``transform_fault``."""

    error: str
    exception: BaseException


class RequestRefused(msgspec.Struct, frozen=True, tag=True):
    """A request could not be worked on and was answered so that the router keeps its events."""

    route: str
    status: int
    reason: str
    detail: str


class RequestArrived(msgspec.Struct, frozen=True, tag=True):
    """A request of the router is under way."""


class RequestServed(msgspec.Struct, frozen=True, tag=True):
    """A request of the router ended; ``ours`` when it was about our destination, and not passed on.

    The status is 0 where it was cut off before its answer.
    """

    method: str
    route: str
    status: int
    seconds: float
    ours: bool


class RequestFault(msgspec.Struct, frozen=True, tag=True):
    """A defect of ours met a request; it was answered 503 and the router keeps its events."""

    route: str
    error: str
    exception: BaseException


class Attempted(msgspec.Struct, frozen=True, tag=True):
    """One request went to impact.com; ``seconds`` until the answer or its absence, whose status is 0."""

    endpoint_path: str
    cause: str
    status: int
    seconds: float


class Delivered(msgspec.Struct, frozen=True, tag=True):
    """One delivery for the router ended, sent or not; the cause tells. ``seconds`` with all waiting."""

    endpoint_path: str
    result: Literal["delivered", "retry", "rejected"]
    cause: str
    seconds: float


class DeliveryMeasured(msgspec.Struct, frozen=True, tag=True):
    """How many requests wait and are under way, by endpoint path, and how many accounts are in which state."""

    waiting: Mapping[str, int]
    in_flight: Mapping[str, int]
    accounts: Mapping[tuple[str, str], int]


class LimitChanged(msgspec.Struct, frozen=True, tag=True):
    """impact.com takes more or less of an account's requests than before: breaker, quota, credentials or limit."""

    account: str
    endpoint_path: str
    change: str
    detail: str


class LaneUnordered(msgspec.Struct, frozen=True, tag=True):
    """A visitor had too many requests waiting; they go in any order."""


class LedgerFailed(msgspec.Struct, frozen=True, tag=True):
    """The ledger of conversions is out of reach: conversions are held back, and the router keeps them."""

    cause: str


class LedgerRestored(msgspec.Struct, frozen=True, tag=True):
    """The ledger of conversions is back."""


class LedgerMeasured(msgspec.Struct, frozen=True, tag=True):
    """What the ledger holds: orders, those without a known outcome, and what it had to drop since the last look."""

    orders: int
    unsettled: int
    capacity: int
    evicted: int


class PassedThrough(msgspec.Struct, frozen=True, tag=True):
    """A request that is not ours went to the stock transformer; status 0 means that it could not be reached."""

    status: int
    seconds: float


class SessionsDecided(msgspec.Struct, frozen=True, tag=True):
    """The session state answered a batch: click candidates by decision, and orders by the source of their click id."""

    questions: int
    decisions: Counter[str]
    orders: Counter[str]
    seconds: float


class StateMeasured(msgspec.Struct, frozen=True, tag=True):
    """What the session state holds, by kind, and what it had to do since the last measurement."""

    sizes: Mapping[str, int]
    capacities: Mapping[str, int]
    evicted: Mapping[str, int]
    late_clicks: int
    unsaved: int


class StateLoaded(msgspec.Struct, frozen=True, tag=True):
    """The session state is open; the sizes are those it was left with."""

    sizes: Mapping[str, int]
    seconds: float


class StateFailed(msgspec.Struct, frozen=True, tag=True):
    """The session state is out of reach: batches are refused for the grace period, and the router keeps them."""

    cause: str
    grace_seconds: float


class StateUndecided(msgspec.Struct, frozen=True, tag=True):
    """The grace period is over: this process decides about clicks alone until the session state is back."""

    cause: str
    seconds: float


class StateRestored(msgspec.Struct, frozen=True, tag=True):
    """The session state is back."""

    seconds: float


class EventsTaken(msgspec.Struct, frozen=True, tag=True):
    """A source handed events over, and those that are stored are durable; results by (status, reason)."""

    source: str
    results: Counter[tuple[str, str]]
    seconds: float


class IngestAnswered(msgspec.Struct, frozen=True, tag=True):
    """A sender was answered on the ingest port, after so many seconds."""

    surface: Literal["segment_api", "webhook"]
    status: int
    seconds: float


class RowEnded(msgspec.Struct, frozen=True, tag=True):
    """A try of a stored event ended: delivered, skipped, dead, or to be tried later; the reason tells why."""

    result: Literal["delivered", "skipped", "later", "dead"]
    reason: str


class SpoolMeasured(msgspec.Struct, frozen=True, tag=True):
    """What the spool holds, by destination, and what it had to do since the last measurement.

    ``age_seconds`` is the age of the oldest event that waits.
    """

    waiting: Mapping[str, int]
    dead: int
    bytes: int
    capacity_rows: int
    capacity_bytes: int
    age_seconds: float
    expired: int
    unordered: int
    evicted: int


class SpoolFailed(msgspec.Struct, frozen=True, tag=True):
    """The spool cannot be read or written: senders are answered 503 and come again, nothing stored is lost."""

    cause: str


class SpoolRestored(msgspec.Struct, frozen=True, tag=True):
    """The spool is back."""


class RoutingLoaded(msgspec.Struct, frozen=True, tag=True):
    """Sources and destinations were read from the configuration file; ``changed`` names what is not as before."""

    sources: int
    destinations: int
    changed: tuple[str, ...]


class RoutingRefused(msgspec.Struct, frozen=True, tag=True):
    """The configuration file was read again and cannot be used; the one before stays in force."""

    detail: str


class PersonForgotten(msgspec.Struct, frozen=True, tag=True):
    """Somebody's deletion was asked for, and done: identities, waiting events and dead letters that were deleted."""

    identities: int
    waiting: int
    dead_letters: int


TelemetryEvent: TypeAlias = (
    ServiceStarted
    | ServiceStopping
    | SupervisorStarted
    | WorkerStarted
    | WorkerEnded
    | WorkerReplaced
    | WorkerNotReplaced
    | ProcessMeasured
    | MemoryExceeded
    | MemoryRecovered
    | RecordingStarted
    | RecordingEnded
    | BatchTransformed
    | TransformFault
    | RequestRefused
    | RequestFault
    | RequestArrived
    | RequestServed
    | Attempted
    | Delivered
    | DeliveryMeasured
    | LimitChanged
    | LaneUnordered
    | LedgerFailed
    | LedgerRestored
    | LedgerMeasured
    | PassedThrough
    | SessionsDecided
    | StateMeasured
    | StateLoaded
    | StateFailed
    | StateUndecided
    | StateRestored
    | EventsTaken
    | IngestAnswered
    | RowEnded
    | SpoolMeasured
    | SpoolFailed
    | SpoolRestored
    | RoutingLoaded
    | RoutingRefused
    | PersonForgotten
)

TELEMETRY_EVENTS: Final[tuple[type[TelemetryEvent], ...]] = get_args(TelemetryEvent)
"""All of them, for the documentation."""
