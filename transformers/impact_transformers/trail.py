"""How each parameter of a request came about; kept for ``explain``, never on the hot path."""

import msgspec


class Try(msgspec.Struct, frozen=True):
    """One path that was looked at. ``result`` is what the rule made of it; None when it was of no use."""

    path: str
    found: bool
    result: str | None = None
    refused: str | None = None


class Step(msgspec.Struct, frozen=True):
    """One parameter: the rule, the paths in the order tried, and the value sent, if any."""

    parameter: str
    rule: str
    tries: tuple[Try, ...]
    value: str | None = None
    note: str | None = None

    @property
    def path(self) -> str | None:
        """The path that won."""
        return next((one.path for one in self.tries if one.result is not None), None)
