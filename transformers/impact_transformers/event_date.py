"""When an event happened, as it is sent: never later than it was received, whatever the visitor's clock says."""

from datetime import datetime

from impact_transformers.normalize import date


def settle_date(form: dict[str, str], received_at: object) -> None:
    """Put ``NOW`` where no time was found, and the time of receipt where the event's own is later."""
    happened = form.get("EventDate")
    if happened is None:
        form["EventDate"] = "NOW"
        return
    if not isinstance(received_at, str):
        return
    # Nearly all times are in UTC, written alike: those are in order when their texts are.
    if happened <= received_at and happened[-1] == "Z" and received_at.endswith("Z"):
        return
    received = date(received_at)
    if received is not None and datetime.fromisoformat(happened) > datetime.fromisoformat(received):
        form["EventDate"] = received
