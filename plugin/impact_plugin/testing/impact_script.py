"""Scripts for ``FakeImpact``: what it does with some calls instead of answering by impact.com's rules."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from impact_plugin.errors import ImpactPluginError
from impact_plugin.testing.rate_limit_headers import RateLimit

_HeaderName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")]

_HeaderValue = Annotated[str, msgspec.Meta(pattern=r"^[\x20-\x7e\t]*\Z")]

_FRAMING_HEADERS: Final = frozenset({"content-length", "transfer-encoding"})


class ScriptError(ImpactPluginError):
    """An unusable script; the message names the field by its path, as in ``$.rules[0].status``."""


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The calls that a rule is for: the path contains ``path``, and each of these parameters has exactly this value."""

    path: str = ""
    parameter: dict[str, str] = msgspec.field(default_factory=dict)


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A scripted behaviour; the first rule that matches and is not used up applies.

    ``times``: how many calls it serves, None for all. ``status`` or ``body`` replace the ordinary answer, without any
    checks; a status below 300 accepts the call. A ``body`` that is a text is sent as it is. ``delay``: seconds, up to
    120, until the answer; the call is accepted and remembered before that. ``reset`` drops the connection without an
    answer, ``before`` or ``after`` accepting the call. ``rate_limit`` is the family of headers that announce ``limit``,
    ``remaining`` and ``reset_after`` (seconds). ``xml`` makes the answer XML, whatever the client accepts.
    """

    match: Match = Match()
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] | None = None
    headers: dict[_HeaderName, _HeaderValue] = msgspec.field(default_factory=dict)
    body: Any = msgspec.UNSET
    delay: Annotated[float, msgspec.Meta(ge=0, le=120)] = 0.0
    reset: Literal["before", "after"] | None = None
    rate_limit: RateLimit | None = None
    limit: Annotated[int, msgspec.Meta(ge=0)] = 1000
    remaining: Annotated[int, msgspec.Meta(ge=0)] = 0
    reset_after: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    xml: bool = False

    def __post_init__(self) -> None:
        if self.reset is not None and (self.status is not None or self.body is not msgspec.UNSET):
            raise ValueError("reset: a dropped connection has neither status nor body")
        if framing := [name for name in self.headers if name.lower() in _FRAMING_HEADERS]:
            raise ValueError(f"headers: {framing[0]} is set by the server")


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``PUT /_script``: all rules, in order."""

    rules: list[Rule]


class RunningScript:
    """A script, and how often each of its rules was used."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._uses = [0] * len(script.rules)

    def rule_for(self, path: str, fields: Mapping[str, str]) -> Rule | None:
        """Return the rule for a call, and count its use; None if no rule applies."""
        for position, rule in enumerate(self.script.rules):
            if rule.times is not None and self._uses[position] >= rule.times:
                continue
            if rule.match.path in path and rule.match.parameter.items() <= fields.items():
                self._uses[position] += 1
                return rule
        return None
