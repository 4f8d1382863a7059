"""Stand-ins for the two sides we talk to, for your own tests: impact.com and rudder-server.

>>> from impact_plugin.testing import FakeImpact, StrictRudder

:class:`FakeImpact` validates, answers, remembers and misbehaves as scripted; :class:`StrictRudder` sends what the
router sends and refuses loudly what would crash it or lose its events.
"""

from impact_plugin.testing.fake_impact import Call, FakeImpact
from impact_plugin.testing.rudder_rules import JobResult, RudderRefusal
from impact_plugin.testing.strict_rudder import StrictRudder, Summary

__all__ = ["Call", "FakeImpact", "JobResult", "RudderRefusal", "StrictRudder", "Summary"]
