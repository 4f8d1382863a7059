"""Exceptions for replies that harm rudder-server or its events, one for each kind of harm."""

from collections.abc import Sequence

from impact_plugin.errors import ImpactPluginError


class RudderRefusal(ImpactPluginError):  # noqa: N818 - it is named after what the router does, like its subclasses
    """A reply that crashes rudder-server, that it cannot use, or that makes it lose events.

    ``job_ids`` are the jobs that come to harm; empty if it is the whole request, or no job in particular.
    """

    def __init__(self, message: str, job_ids: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.job_ids = tuple(job_ids)


class RouterPanic(RudderRefusal):
    """The rudder-server process would crash, with every pipeline that it runs."""


class BatchAborted(RudderRefusal):
    """The router would give up at once on events that were not even processed; they are lost."""


class EventDropped(RudderRefusal):
    """An event of the input has no output; the processor would drop it silently."""


class InvalidReply(RudderRefusal):
    """The router cannot read the reply or match it to its jobs; it would give all of them a 500 and retry them."""


class SilentLoss(RudderRefusal):
    """The router would report success, but the conversion would never be sent, or its status would be forgotten."""


class StalledForever(RudderRefusal):
    """The router would retry this job forever, since it can never be delivered."""


class CorruptedForm(RudderRefusal):
    """A FORM or query value would arrive as another text: Go prints numbers, objects and nulls in its own notation."""


class MissingContentType(RudderRefusal):
    """The request has no Content-Type that fits its body, and the router adds none."""
