"""Stand-ins for your own tests: for impact.com and for rudder-server.

>>> from impact_plugin.testing import FakeImpact, StrictRudder

:class:`FakeImpact` checks, answers and remembers requests, and misbehaves as you script it. :class:`StrictRudder` sends
what the router sends, and raises where a reply would crash it or make it lose events. :class:`RouterQueue` delivers
through the proxy with the router's workers, order and retries. :func:`run_virtual` runs all of them, and the service,
on a clock that jumps.
"""

from impact_plugin.rudder.jobs import JobResult
from impact_plugin.rudder.refusals import RudderRefusal
from impact_plugin.testing.capacity import Capacity
from impact_plugin.testing.fake_impact import Call, FakeImpact
from impact_plugin.testing.rudder_queue import JobEnd, Mischief, RouterJob, RouterQueue
from impact_plugin.testing.strict_rudder import StrictRudder, Summary
from impact_plugin.testing.virtual_time import VirtualLoop, run_virtual

__all__ = [
    "Call",
    "Capacity",
    "FakeImpact",
    "JobEnd",
    "JobResult",
    "Mischief",
    "RouterJob",
    "RouterQueue",
    "RudderRefusal",
    "StrictRudder",
    "Summary",
    "VirtualLoop",
    "run_virtual",
]
