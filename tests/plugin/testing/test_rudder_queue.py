"""The router's queue: its workers, its order, and every row of its retry table, on virtual time."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from aiohttp import web

from impact_plugin.rudder.refusals import InvalidReply
from impact_plugin.testing.rudder_queue import JobEnd, Mischief, RouterJob, RouterQueue
from impact_plugin.testing.virtual_time import run_virtual

REQUEST = {"type": "REST", "endpoint": "http://127.0.0.1:9/PageLoad", "method": "POST", "body": {"FORM": {"A": "1"}}}
HOUR = 3600.0


class Proxy:
    """A proxy that answers each job with the statuses it is told, and notes when it was asked."""

    def __init__(self, statuses: Callable[[int, int], int], seconds: float = 0.0) -> None:
        self._statuses, self._seconds = statuses, seconds
        self.asked: list[tuple[float, int, int]] = []
        self.together = self.most = 0

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer as v1."""
        body = msgspec.json.decode(await request.read())
        (metadata,) = body["metadata"]
        job, attempt = metadata["jobId"], metadata["attemptNum"]
        self.asked.append((asyncio.get_running_loop().time(), job, attempt))
        self.together += 1
        self.most = max(self.most, self.together)
        await asyncio.sleep(self._seconds)
        self.together -= 1
        status = self._statuses(job, attempt)
        entry = {"statusCode": status, "metadata": metadata, "error": f"{status}"}
        reply = {"output": {"status": status, "message": "", "response": [entry], "statTags": {}}}
        return web.Response(body=msgspec.json.encode(reply), headers={"apiVersion": "2"})


def play(proxy: Proxy, jobs: Sequence[RouterJob], **settings: Any) -> tuple[list[JobEnd], RouterQueue]:
    """Let the queue deliver the jobs to the proxy."""

    async def main() -> tuple[list[JobEnd], RouterQueue]:
        runner = web.ServerRunner(web.Server(proxy.handle))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with RouterQueue(url, config={}, **settings) as queue:
                return await queue.run(jobs), queue
        finally:
            await runner.cleanup()

    return run_virtual(main)


def jobs_of(number: int, users: int = 1000) -> list[RouterJob]:
    """Jobs of so many users in turn."""
    return [RouterJob(one, f"user-{one % users}", lambda _attempt: REQUEST) for one in range(number)]


@pytest.mark.parametrize(
    ("statuses", "expected", "attempts"),
    [
        ([200], "succeeded", 1),
        ([204], "succeeded", 1),
        ([298], "filtered", 1),
        ([400], "aborted", 1),
        ([404], "aborted", 1),
        ([429, 200], "succeeded", 2),
        ([408, 200], "succeeded", 2),
        ([429] * 60 + [200], "succeeded", 61),
        ([500, 200], "succeeded", 2),
        ([500] * 99, "aborted", 41),
        ([429] * 50 + [500], "aborted", 51),
        ([599] * 50 + [200], "succeeded", 51),
    ],
    ids=lambda value: str(value)[:24],
)
def test_every_row_of_the_retry_table(statuses: list[int], expected: str, attempts: int) -> None:
    """429 goes on without end; a 5xx ends three hours after the first failure, a 429 included."""
    (end,), _ = play(Proxy(lambda _job, attempt: statuses[attempt]), jobs_of(1))

    assert end.state == expected
    assert end.statuses == tuple(statuses[: len(end.statuses)])
    assert abs(len(end.statuses) - attempts) <= 1


def test_retries_wait_ten_seconds_doubled_up_to_five_minutes() -> None:
    """As ``minRetryBackoff`` and ``maxRetryBackoff`` say."""
    proxy = Proxy(lambda _job, attempt: 200 if attempt == 8 else 429)
    play(proxy, jobs_of(1))
    times = [round(when) for when, _, _ in proxy.asked]

    assert [later - earlier for earlier, later in pairwise(times)] == [
        10, 20, 40, 80, 160, 300, 300, 300
    ]  # fmt: skip


def test_jobs_that_fail_for_a_month_are_drained() -> None:
    """``jobRetention``: the end of what is retried without end."""
    (end,), _ = play(Proxy(lambda _job, _attempt: 429), jobs_of(1), retention=10 * HOUR)

    assert end.state == "drained"
    assert end.seconds == pytest.approx(10 * HOUR, abs=400)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_failed_job_holds_back_its_users_later_ones(ordered: bool) -> None:
    """``guaranteeUserEventOrder``; other users of the same worker go on."""
    proxy = Proxy(lambda job, attempt: 429 if job == 0 and attempt < 3 else 200)
    play(proxy, jobs_of(12, users=2), ordered=ordered, workers=1)
    done = defaultdict(list)
    for _, job, attempt in proxy.asked:
        if job or attempt == 3:
            done[job % 2].append(job)

    assert (done[0] == sorted(done[0])) == ordered
    assert done[1] == sorted(done[1])


def test_as_many_are_under_way_as_there_are_workers() -> None:
    """64 of a destination, by default."""
    proxy = Proxy(lambda _job, _attempt: 200, seconds=1.0)
    ends, _ = play(proxy, jobs_of(600))

    assert proxy.most == 64
    assert {end.state for end in ends} == {"succeeded"}


def test_a_proxy_that_is_late_is_noticed() -> None:
    """Answers after ``RdProxy-Timeout`` are counted."""
    _, queue = play(Proxy(lambda _job, _attempt: 200, seconds=10.5), jobs_of(3))

    assert queue.late == 3
    assert queue.slowest == pytest.approx(10.5, abs=0.1)


@pytest.mark.parametrize(
    "mischief",
    [
        Mischief(hang_up=lambda _job, attempt: 0.5 if attempt == 0 else None),
        Mischief(lose_reply=lambda _job, attempt: attempt == 0),
    ],
    ids=["hang up", "lost reply"],
)
def test_no_answer_counts_as_a_500(mischief: Mischief) -> None:
    """The job comes again; the proxy was asked twice."""
    proxy = Proxy(lambda _job, _attempt: 200, seconds=1.0)
    (end,), _ = play(proxy, jobs_of(1), mischief=mischief)

    assert end.statuses == (500, 200)
    assert [attempt for _, _, attempt in proxy.asked] == [0, 1]


def test_nobody_listening_counts_as_a_500() -> None:
    """Until the three hours are over."""

    async def main() -> list[JobEnd]:
        async with RouterQueue("http://127.0.0.1:9", config={}) as queue:
            return await queue.run(jobs_of(1))

    (end,) = run_virtual(main)

    assert end.state == "aborted"
    assert set(end.statuses) == {500}


def test_the_request_is_made_anew_for_each_attempt() -> None:
    """Router transform: what a corrected configuration makes of the event goes out the next time."""
    seen: list[int] = []

    def prepare(attempt: int) -> dict[str, Any]:
        seen.append(attempt)
        return REQUEST

    play(Proxy(lambda _job, attempt: 429 if attempt < 2 else 200), [RouterJob(1, "u", prepare)])

    assert seen == [0, 1, 2]


def test_a_reply_of_another_shape_is_refused() -> None:
    """Strict as ever: the real router would count it and retry, which hides a defect of ours."""

    async def nonsense(_request: web.BaseRequest) -> web.Response:
        return web.Response(body=b"{}", headers={"apiVersion": "2"})

    proxy = Proxy(lambda _job, _attempt: 200)
    handler: Callable[[web.BaseRequest], Awaitable[web.Response]] = nonsense
    proxy.handle = handler  # type: ignore[method-assign, assignment]
    with pytest.raises(ExceptionGroup) as caught:
        play(proxy, jobs_of(1))

    assert caught.group_contains(InvalidReply)
