"""RouterQueue: rudder-server's router for jobs that it delivers through the proxy, from its workers to its last retry.

The jobs of a user always go to the same worker of a destination, in order; a job that failed holds back the user's
later ones until it succeeds or is aborted. :mod:`~impact_plugin.rudder.retries` decides what follows a status, and
when, and :mod:`~impact_plugin.rudder.replies` checks every reply. Time is that of the event loop, so that a day of
retries passes in an instant on :class:`~impact_plugin.testing.virtual_time.VirtualLoop`.

Sources, in https://github.com/rudderlabs/rudder-server: ``router/worker.go``, ``router/handle.go``,
``router/partition_worker.go`` and ``router/transformer/transformer.go``.
"""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self
from zlib import crc32

import aiohttp
import msgspec

from impact_plugin.rudder.bodies import Built, Route, proxy_body
from impact_plugin.rudder.jobs import JobResult
from impact_plugin.rudder.replies import check_proxy_v0_reply, check_proxy_v1_reply
from impact_plugin.rudder.retries import backoff, next_state

WORKERS: Final = 64
TIMEOUT: Final = 10.0
"""``Router.<TYPE>.httpTimeout``, which the router also sends as ``RdProxy-Timeout``."""

CLIENT_TIMEOUT: Final = 610.0
RETRY_WINDOW: Final = 180 * 60.0
RETENTION: Final = 720 * 3600.0

State = Literal["succeeded", "filtered", "aborted", "drained"]


class RouterJob(msgspec.Struct, frozen=True):
    """A job: its id, the key of its user, and a function from the attempt (counted from 0) to its request object.

    Router transform makes a new request for every attempt, which may differ after a change of the configuration.
    """

    job_id: int
    user: str
    prepare: Callable[[int], dict[str, Any]]


class JobEnd(msgspec.Struct, frozen=True):
    """What became of a job: its last state, the status of every attempt, the last error, and the seconds it took."""

    job_id: int
    state: State
    statuses: tuple[int, ...]
    error: str
    seconds: float


class Mischief(msgspec.Struct, frozen=True):
    """Faults on the router's side, by job and attempt.

    ``hang_up`` returns the seconds after which it closes the connection, or None; ``lose_reply`` whether it never sees
    the reply, although there is one. Both count as a 500, as for the real router.
    """

    hang_up: Callable[[RouterJob, int], float | None] = lambda _job, _attempt: None
    lose_reply: Callable[[RouterJob, int], bool] = lambda _job, _attempt: False


class _Pending(msgspec.Struct):
    job: RouterJob
    due: float
    statuses: list[int]
    first_failed_at: float | None = None


class RouterQueue:
    """The queue of a destination, as an async context manager.

    ``url`` is the base address of the proxy. ``ordered`` is ``Router.<TYPE>.guaranteeUserEventOrder`` and
    ``shortest_backoff`` ``minRetryBackoff``. ``late`` counts replies after more than ``timeout`` seconds, of which the
    plugin promises none, and ``slowest`` is the seconds until the slowest reply.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of the real router, given by name
        self,
        url: str,
        *,
        config: dict[str, Any],
        destination_id: str = "dst-impact-1",
        version: Literal["v0", "v1"] = "v1",
        workers: int = WORKERS,
        ordered: bool = True,
        timeout: float = TIMEOUT,
        shortest_backoff: float = 10.0,
        retry_window: float = RETRY_WINDOW,
        retention: float = RETENTION,
        mischief: Mischief | None = None,
    ) -> None:
        self._url = f"{url.rstrip('/')}/{version}/destinations/impact/proxy"
        self._route = Route(config, destination_id=destination_id)
        self._version: Literal["v0", "v1"] = version
        self._workers = workers
        self._ordered = ordered
        self._timeout = timeout
        self._shortest_backoff = shortest_backoff
        self._retry_window = retry_window
        self._retention = retention
        self._mischief = mischief or Mischief()
        self.late = 0
        self.slowest = 0.0

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=100, keepalive_timeout=30.0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=CLIENT_TIMEOUT))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def run(self, jobs: Sequence[RouterJob]) -> list[JobEnd]:
        """Deliver all jobs until each has ended; returns their ends in the order of ``jobs``.

        Raises what :func:`~impact_plugin.rudder.replies.check_proxy_v1_reply` raises, in an ExceptionGroup.
        """
        lines: list[list[_Pending]] = [[] for _ in range(self._workers)]
        now = asyncio.get_running_loop().time()
        for job in jobs:
            lines[crc32(job.user.encode()) % self._workers].append(_Pending(job, now, []))
        ends: dict[int, JobEnd] = {}
        async with asyncio.TaskGroup() as group:
            for line in lines:
                group.create_task(self._work(line, ends, now))
        return [ends[job.job_id] for job in jobs]

    async def _work(self, line: list[_Pending], ends: dict[int, JobEnd], started: float) -> None:
        """Work as one worker: on the first job that is due and not held back, until none is left."""
        loop = asyncio.get_running_loop()
        while line:
            free = self._free(line)
            pending = next((one for one in free if one.due <= loop.time()), None)
            if pending is None:
                await asyncio.sleep(min(one.due for one in free) - loop.time())
                continue
            state, error = await self._attempt(pending, started)
            if state != "retry":
                line.remove(pending)
                seconds = loop.time() - started
                ends[pending.job.job_id] = JobEnd(pending.job.job_id, state, tuple(pending.statuses), error, seconds)

    def _free(self, line: Sequence[_Pending]) -> list[_Pending]:
        """Return the jobs that no earlier job of their user holds back."""
        if not self._ordered:
            return list(line)
        found: dict[str, _Pending] = {}
        for pending in line:
            found.setdefault(pending.job.user, pending)
        return list(found.values())

    async def _attempt(self, pending: _Pending, started: float) -> tuple[State | Literal["retry"], str]:
        loop = asyncio.get_running_loop()
        if loop.time() - started > self._retention:
            return "drained", "job retention"
        result = await self._deliver(pending.job, len(pending.statuses))
        pending.statuses.append(result.status)
        now = loop.time()
        attempts = len(pending.statuses)
        if result.status >= 300 or result.status < 200:
            pending.first_failed_at = now if pending.first_failed_at is None else pending.first_failed_at
            pending.due = now + backoff(attempts, shortest=self._shortest_backoff)
        state = next_state(
            result.status,
            attempt=attempts,
            first_failed_at=pending.first_failed_at,
            now=now,
            retry_window=self._retry_window,
        )
        return state, result.error

    async def _deliver(self, job: RouterJob, attempt: int) -> JobResult:
        """Call the proxy once; without a reply the status is 500."""
        loop = asyncio.get_running_loop()
        built = proxy_body(job.prepare(attempt), [job.job_id], self._route, version=self._version, attempt=attempt)
        began = loop.time()
        try:
            async with asyncio.timeout(self._mischief.hang_up(job, attempt)):
                result = await self._call(built)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return JobResult(job.job_id, 500, "retry", error=f"no answer from the proxy: {type(error).__name__}")
        self.slowest = max(self.slowest, loop.time() - began)
        self.late += loop.time() - began > self._timeout
        if self._mischief.lose_reply(job, attempt):
            return JobResult(job.job_id, 500, "retry", error="the reply was lost")
        return result

    async def _call(self, built: Built) -> JobResult:
        headers = {"Content-Type": "application/json", "RdProxy-Timeout": str(int(self._timeout * 1000))}
        async with self._session.post(self._url, data=built.body, headers=headers) as got:
            body = await got.read()
            check = check_proxy_v1_reply if self._version == "v1" else check_proxy_v0_reply
            return check(built.jobs, got.status, got.headers, body).jobs[0]
