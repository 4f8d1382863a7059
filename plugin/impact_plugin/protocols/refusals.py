"""Reasons for refusing a whole request, on the router's and the senders' port."""

from enum import StrEnum
from typing import Final

import msgspec

from impact_plugin.errors import ImpactPluginError


class RefusalReason(StrEnum):
    """Reasons for refusing a request; they appear in responses, logs, metrics and as headings in the docs."""

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
    """What a reason means, and how the operator can fix it."""

    meaning: str
    fix: str


REFUSALS: Final[dict[RefusalReason, RefusalFacts]] = {
    RefusalReason.BODY_TOO_LARGE: RefusalFacts(
        "The decompressed body, or a single event, is larger than the settings allow.",
        "For a router raise server.max_body_mb; for a sender raise max_batch_mb, max_webhook_mb or max_event_kb of its "
        "source. Or configure the client to send smaller batches.",
    ),
    RefusalReason.UNDECODABLE_BODY: RefusalFacts(
        "The body does not match the endpoint: it is not JSON, has another structure, or an unsupported encoding.",
        "Find the client that calls this endpoint, and compare its requests with openapi.json.",
    ),
    RefusalReason.UNREADABLE_BODY: RefusalFacts(
        "The body is truncated, or its transfer encoding is invalid.",
        "Check proxies and timeouts between the router and the service.",
    ),
    RefusalReason.UNKNOWN_PATH: RefusalFacts(
        "The senders' port has no such path, method or source.",
        "Send POST requests to /v1/batch, /v1/track and so on, or to /webhook/SOURCE with a configured source.",
    ),
    RefusalReason.UNKNOWN_KEY: RefusalFacts(
        "The sender's key belongs to no source, or is missing.",
        "Compare the sender's key with sources.NAME.keys in the configuration.",
    ),
    RefusalReason.WRONG_SIGNATURE: RefusalFacts(
        "The webhook's signature does not match its body and the source's secret, or is too old.",
        "Compare the secrets and the clocks of both sides; see sources.NAME.signature.",
    ),
    RefusalReason.NOT_OURS: RefusalFacts(
        "The request is for another destination or path, and no upstream transformer is configured.",
        "Set rudder.upstream to the stock transformer's address.",
    ),
    RefusalReason.UPSTREAM_UNREACHABLE: RefusalFacts(
        "The stock transformer at rudder.upstream cannot be reached.",
        "Check the stock transformer; the router retries.",
    ),
    RefusalReason.STATE_UNAVAILABLE: RefusalFacts(
        "The session state or the spool cannot be read or written.",
        "Check the disk that holds state.dir; the detail names the cause.",
    ),
    RefusalReason.SPOOL_FULL: RefusalFacts(
        "Too many events are waiting for delivery, or the disk is nearly full.",
        "Check /debug/limits for why they wait, or raise spool.max_events and spool.max_mb.",
    ),
    RefusalReason.BUSY: RefusalFacts(
        "Senders' bodies in progress use up the memory for them.",
        "If it persists, configure senders to send smaller batches; they retry by themselves.",
    ),
    RefusalReason.TOO_SLOW: RefusalFacts(
        "The sender's body did not arrive in time, or its events could not be stored in time.",
        "Check the sender's connection, and the commit latency of the disk.",
    ),
    RefusalReason.MEMORY: RefusalFacts(
        "The process exceeds server.max_memory_mb.",
        "Raise the limit, lower state.max_*, or configure the router to send smaller batches.",
    ),
    RefusalReason.STOPPING: RefusalFacts(
        "The service is shutting down.",
        "No action needed: the client retries, and the next process accepts the request.",
    ),
    RefusalReason.INTERNAL_ERROR: RefusalFacts(
        "A defect of impact-plugin.",
        "Report it, and include the log line request_fault.",
    ),
}


class RefusedError(ImpactPluginError):
    """The request is refused; ``detail`` is for the client, which may retry after ``retry_seconds``."""

    def __init__(self, reason: RefusalReason, detail: str, retry_seconds: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.retry_seconds = retry_seconds
