"""The logging hook: one JSON object a line on standard error, without secrets and personal data."""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Final

import structlog

from impact_plugin.config.settings import LogSettings
from impact_plugin.telemetry.event import Handler, TelemetryEvent
from impact_transformers.normalize import redact_emails
from impact_transformers.secret import MASK, Secret

EXCEPTION: Final = "exception"
PLACES: Final = "at"
"""The field that shows the places an exception passed, in place of the exception."""

SECRET_KEYS: Final = frozenset({"authorization", "apikey", "api_key", "authtoken", "auth_token", "token", "secret"})


def configure_logging(settings: LogSettings) -> None:
    """Set structlog up for this process."""
    renderer: Any = structlog.processors.JSONRenderer()
    if settings.format == "console":
        renderer = structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _where_it_broke,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_LibraryLines()], level=logging.WARNING, force=True)


class _LibraryLines(logging.Handler):
    """Lines of the libraries, in our form and without their text: theirs may quote a request."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        line = structlog.get_logger().error if record.levelno >= logging.ERROR else structlog.get_logger().warning
        with suppress(OSError, ValueError):
            line("library_message", logger=record.name, error=error, where=f"{record.module}:{record.lineno}")


def log_handlers(kind: type[TelemetryEvent]) -> list[Handler]:
    """Return what writes the lines of the events of this class: nothing for those without a level."""
    level = kind.level
    if level is None:
        return []
    name, number = line_name(kind), logging.getLevelNamesMapping()[level.upper()]

    def write(event: TelemetryEvent) -> None:
        logger = structlog.get_logger().bind()
        if not logger.is_enabled_for(number):
            return
        fields = {field: _plain(getattr(event, field)) for field in event.__struct_fields__}
        # Standard error may be closed or a broken pipe: losing a line is better than losing a reply.
        with suppress(OSError, ValueError):
            getattr(logger, level)(name, **fields)

    return [write]


def line_name(kind: type[TelemetryEvent]) -> str:
    """Return what the log calls an event: the name of its class in snake case."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def line_fields(kind: type[TelemetryEvent]) -> tuple[str, ...]:
    """Return the fields of an event's log line."""
    return tuple(PLACES if field == EXCEPTION else field for field in kind.__struct_fields__)


def redact(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask what is secret by its name or type, and e-mail addresses wherever they stand."""
    for key, value in line.items():
        line[key] = MASK if key.lower() in SECRET_KEYS else _redacted(value)
    return line


def _redacted(value: Any) -> Any:
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, str):
        return redact_emails(value)
    if isinstance(value, dict):
        return {
            redact_emails(str(key)): MASK if str(key).lower() in SECRET_KEYS else _redacted(entry)
            for key, entry in value.items()
        }
    return [_redacted(entry) for entry in value] if isinstance(value, list | tuple) else value


def _where_it_broke(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace an exception by the places of our code it passed: its message may quote the event."""
    error = line.pop(EXCEPTION, None)
    if isinstance(error, BaseException):
        frames = structlog.tracebacks.extract(type(error), error, error.__traceback__).stacks[0].frames
        line[PLACES] = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
    return line


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_joined(key): number for key, number in sorted(value.items())}
    return round(value, 6) if isinstance(value, float) else value


def _joined(key: str | tuple[str, ...]) -> str:
    return key if isinstance(key, str) else "/".join(part for part in key if part)
