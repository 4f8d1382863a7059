"""``POST /deleteUsers``: deletes users on behalf of the router's regulation worker.

200 means done. On 404 and 405 the worker gives up; on any other status it retries.
https://github.com/rudderlabs/rudder-server/blob/master/regulation-worker/internal/delete/api/api.go
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, Literal, TypeAlias

import msgspec

from impact_plugin.config.destinations import Destinations
from impact_plugin.errors import EnvelopeError, StateUnavailableError
from impact_plugin.ingest.deletion import MAX_IDS, ForgetReport
from impact_plugin.protocols.refusals import RefusalReason
from impact_transformers.events import UNREADABLE
from impact_transformers.normalize import as_text

Forget: TypeAlias = Callable[[list[str], list[str], Collection[str]], Awaitable[ForgetReport]]

IDS: Final = ("userId", "anonymousId")


class _Typed(msgspec.Struct, frozen=True, rename="camel"):
    dest_type: str = ""


class DeletionJob(_Typed, frozen=True, rename="camel"):
    """The users to delete, by their ids, at one destination."""

    config: msgspec.Raw = msgspec.Raw(b"{}")
    user_attributes: list[dict[str, Any]] = []


class DeletionReply(msgspec.Struct, frozen=True, rename="camel"):
    """The result of one job."""

    status_code: int
    status: Literal["successful", "failed"]
    error: str = ""
    auth_error_category: str = ""


_types_decoder: Final = msgspec.json.Decoder(list[_Typed])
_decoder: Final = msgspec.json.Decoder(list[DeletionJob])


def destination_type(body: bytes) -> str:
    """Return the jobs' destination type in lower case, empty if it is missing or cannot be decoded."""
    try:
        jobs = _types_decoder.decode(body)
    except UNREADABLE:
        return ""
    return jobs[0].dest_type.lower() if jobs else ""


async def handle(body: bytes, destinations: Destinations, forget: Forget) -> tuple[int, bytes]:
    """Delete the users of every job; returns the worst status and the response body."""
    replies = [await _handle_job(job, destinations, forget) for job in _read(body)]
    status = max((reply.status_code for reply in replies), default=200)
    return status, msgspec.json.encode(replies)


def _read(body: bytes) -> list[DeletionJob]:
    try:
        return _decoder.decode(body)
    except UNREADABLE as error:
        raise EnvelopeError(f"not a list of jobs: {error}") from error


async def _handle_job(job: DeletionJob, destinations: Destinations, forget: Forget) -> DeletionReply:
    destination = destinations.get(msgspec.Raw(b'{"Config":' + bytes(job.config) + b"}"))
    program = destination.destination.program if destination.destination is not None else None
    if program is None:
        problem = destination.problem or "it has values that come from each event, so these may too"
        return DeletionReply(400, "failed", f"the destination's configuration does not name one program: {problem}")
    users, anonymous = ([text for who in job.user_attributes if (text := as_text(who.get(name)))] for name in IDS)
    try:
        for start in range(0, max(len(users), len(anonymous)), MAX_IDS):
            part = slice(start, start + MAX_IDS)
            await forget(users[part], anonymous[part], (program,))
    except StateUnavailableError as error:
        return DeletionReply(500, "failed", f"{RefusalReason.STATE_UNAVAILABLE}: {error}")
    return DeletionReply(200, "successful")
