"""Why a whole request is refused, by the router's port and the port for senders."""

from enum import StrEnum
from typing import Final

import msgspec

from impact_plugin.errors import ImpactPluginError


class RefusalReason(StrEnum):
    """Reasons of refused requests: a metric label, a log key, a word of the answer and a heading in the docs."""

    BODY_TOO_LARGE = "body_too_large"
    UNDECODABLE_BODY = "undecodable_body"
    UNREADABLE_BODY = "unreadable_body"
    UNKNOWN_PATH = "unknown_path"
    UNKNOWN_KEY = "unknown_key"
    WRONG_SIGNATURE = "wrong_signature"
    NOT_OURS = "not_ours"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    STATE_UNAVAILABLE = "state_unavailable"
    SPOOL_FULL = "spool_full"
    BUSY = "busy"
    TOO_SLOW = "too_slow"
    MEMORY = "memory"
    STOPPING = "stopping"
    INTERNAL_ERROR = "internal_error"


class RefusalFacts(msgspec.Struct, frozen=True):
    """What a reason means, and what the operator can do."""

    meaning: str
    fix: str


REFUSALS: Final[dict[RefusalReason, RefusalFacts]] = {
    RefusalReason.BODY_TOO_LARGE: RefusalFacts(
        "The body, after inflation, or a single event is larger than the settings allow.",
        "Raise server.max_body_mb for a router, max_batch_mb, max_webhook_mb or max_event_kb of the source for a "
        "sender; or let it send less at once.",
    ),
    RefusalReason.UNDECODABLE_BODY: RefusalFacts(
        "The body is not what the path takes: not JSON, another shape, or an encoding that is not known.",
        "Find out what calls this path, and compare what it sends with openapi.json.",
    ),
    RefusalReason.UNREADABLE_BODY: RefusalFacts(
        "The body broke off, or its transfer encoding is wrong.",
        "Look for a proxy or a time-out between the router and the service.",
    ),
    RefusalReason.UNKNOWN_PATH: RefusalFacts(
        "The port for senders has no such path, method or source.",
        "Send POST to /v1/batch, /v1/track and the like, or to /webhook/SOURCE with a source of the configuration.",
    ),
    RefusalReason.UNKNOWN_KEY: RefusalFacts(
        "No source has the key that the sender presents, or it presents none.",
        "Compare the sender's key with sources.NAME.keys of the configuration.",
    ),
    RefusalReason.WRONG_SIGNATURE: RefusalFacts(
        "The webhook's signature does not fit its body and the source's secret, or is too old.",
        "Compare the secret with the sender's, and the clocks; see sources.NAME.signature.",
    ),
    RefusalReason.NOT_OURS: RefusalFacts(
        "The request is for another destination or path, and no upstream transformer is configured.",
        "Set rudder.upstream to the stock transformer's address.",
    ),
    RefusalReason.UPSTREAM_UNREACHABLE: RefusalFacts(
        "The stock transformer at rudder.upstream did not answer.",
        "Check the stock transformer; the router sends the request again.",
    ),
    RefusalReason.STATE_UNAVAILABLE: RefusalFacts(
        "The session state or the spool cannot be read or written.",
        "Check the disk of state.dir; the detail names the cause.",
    ),
    RefusalReason.SPOOL_FULL: RefusalFacts(
        "Too many events wait to be delivered, or the disk is nearly full.",
        "See why they wait at /debug/limits, or raise spool.max_events and spool.max_mb.",
    ),
    RefusalReason.BUSY: RefusalFacts(
        "Too many large bodies of senders are being processed at the same time.",
        "Nothing to do when it passes, since senders repeat; else let them send smaller batches.",
    ),
    RefusalReason.TOO_SLOW: RefusalFacts(
        "The sender's body did not arrive in time, or its events were not on disk in time.",
        "Check the sender's connection, and how long the disk takes for a commit.",
    ),
    RefusalReason.MEMORY: RefusalFacts(
        "The process is above server.max_memory_mb.",
        "Raise the ceiling, lower state.max_*, or let the router send smaller batches.",
    ),
    RefusalReason.STOPPING: RefusalFacts(
        "The service is stopping.",
        "Nothing to do: the router or the sender repeats the request, and the next process takes it.",
    ),
    RefusalReason.INTERNAL_ERROR: RefusalFacts(
        "A defect of this software.",
        "Report it with the log's request_fault line.",
    ),
}


class RefusedError(ImpactPluginError):
    """A request is not taken; ``detail`` is for whoever sent it, who may repeat it after ``retry_seconds``."""

    def __init__(self, reason: RefusalReason, detail: str, retry_seconds: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.retry_seconds = retry_seconds
