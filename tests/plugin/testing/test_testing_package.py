"""``impact_plugin.testing`` as others use it: two names, a few lines, no part of the running service."""

import subprocess
import sys
from typing import Any

import impact_plugin.testing
from impact_plugin.app import Service
from impact_plugin.testing import FakeImpact, StrictRudder, Summary


def test_what_is_promised_is_there() -> None:
    """Every name in ``__all__`` can be imported and says what it is."""
    missing = [name for name in impact_plugin.testing.__all__ if not getattr(impact_plugin.testing, name).__doc__]

    assert missing == []
    assert {"FakeImpact", "StrictRudder"} <= set(impact_plugin.testing.__all__)


async def test_the_two_stand_ins_meet_around_a_service(
    service: Service, impact: FakeImpact, config: dict[str, Any], page: dict[str, Any], order: dict[str, Any]
) -> None:
    """A test of an operator's own: events in, a summary out, and the calls to look at."""
    async with StrictRudder(service.url, destination_config=config) as rudder:
        summary = await rudder.run([page, order, {"type": "group"}], delivery="direct")

    assert summary == Summary(3, {"succeeded": 2, "filtered": 1}, {200: 2, 298: 1})
    assert (len(impact.page_loads), len(impact.conversions), impact.duplicates) == (1, 1, 0)


async def test_a_delivery_refused_for_a_while_succeeds_in_the_end(
    service: Service, impact: FakeImpact, config: dict[str, Any], order: dict[str, Any]
) -> None:
    """The router's retries and our 429s fit together: three troubles of impact.com, one conversion."""
    impact.script([{"status": status, "times": 1} for status in (503, 401, 500)])

    async def no_sleep(_seconds: float) -> None:
        return

    async with StrictRudder(service.url, destination_config=config, sleep=no_sleep) as rudder:
        summary = await rudder.run([order], transform="router", delivery="proxy", attempts=5)

    assert summary == Summary(1, {"succeeded": 1}, {200: 1})
    assert [call.status for call in impact.calls] == [503, 401, 500, 200]


def test_the_service_does_not_load_the_stand_ins() -> None:
    """What serves in production imports nothing of the test tools."""
    code = (
        "import sys, impact_plugin.app; "
        "print([name for name in sys.modules if name.startswith('impact_plugin.testing')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
