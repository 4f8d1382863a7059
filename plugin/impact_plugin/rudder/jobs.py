"""Jobs: events as the router tracks them, and what becomes of each."""

from typing import Any, Literal

import msgspec

State = Literal["transformed", "succeeded", "filtered", "aborted", "retry"]
"""The state of a job; ``transformed`` means that it has a request and waits for delivery."""


class RequestJob(msgspec.Struct, frozen=True):
    """A job of a request: its id, and the JSON bytes of its metadata and (for router transform) its destination."""

    job_id: int
    metadata: bytes
    destination: bytes = b""


class JobResult(msgspec.Struct, frozen=True):
    """What became of a job: its status, the state that follows from it, and the request to deliver, if there is one.

    Jobs that were batched into one request share the same ``request`` object.
    """

    job_id: int
    status: int
    state: State
    request: dict[str, Any] | None = None
    error: str = ""
    stat_tags: dict[str, str] = {}
    metadata: bytes = b""
