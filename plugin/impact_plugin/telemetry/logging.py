"""The logging hook: JSON lines on standard error, without secrets and personal data."""

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
TRACEBACK: Final = "at"
"""In a log line, the places that an exception passed; the exception itself never shows: it may quote an event."""

SECRET_KEYS: Final = frozenset({"authorization", "apikey", "api_key", "authtoken", "auth_token", "token", "secret"})


def configure_logging(settings: LogSettings) -> None:
    """Configure structlog for this process, and send what libraries log through it."""
    renderer: Any = structlog.processors.JSONRenderer()
    if settings.format == "console":
        renderer = structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _locate_exception,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_LibraryLines()], level=logging.WARNING, force=True)


class _LibraryLines(logging.Handler):
    """Logs in our format that a library logged something, without its text, which may quote a request."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        line = structlog.get_logger().error if record.levelno >= logging.ERROR else structlog.get_logger().warning
        with suppress(OSError, ValueError):
            line("library_message", logger=record.name, error=error, where=f"{record.module}:{record.lineno}")


def log_handlers(kind: type[TelemetryEvent]) -> list[Handler]:
    """Return what logs the events of this class: nothing for a class without a level."""
    level = kind.level
    if level is None:
        return []
    name, number = line_name(kind), logging.getLevelNamesMapping()[level.upper()]

    def write(event: TelemetryEvent) -> None:
        logger = structlog.get_logger().bind()
        if not logger.is_enabled_for(number):
            return
        fields = {field: _plain(getattr(event, field)) for field in event.__struct_fields__}
        # Standard error may be closed, full or a broken pipe: better to lose a line than a reply.
        with suppress(OSError, ValueError):
            getattr(logger, level)(name, **fields)

    return [write]


def line_name(kind: type[TelemetryEvent]) -> str:
    """Return what the log calls an event: the name of its class in snake case."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def line_fields(kind: type[TelemetryEvent]) -> tuple[str, ...]:
    """Return the names of the fields of an event's log line."""
    return tuple(TRACEBACK if field == EXCEPTION else field for field in kind.__struct_fields__)


def redact(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask secrets, by their key or type, and e-mail addresses wherever they occur."""
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


def _locate_exception(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace an exception by its traceback: file, line and function of the last eight frames."""
    error = line.pop(EXCEPTION, None)
    if isinstance(error, BaseException):
        frames = structlog.tracebacks.extract(type(error), error, error.__traceback__).stacks[0].frames
        line[TRACEBACK] = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
    return line


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_joined(key): number for key, number in sorted(value.items())}
    return round(value, 6) if isinstance(value, float) else value


def _joined(key: str | tuple[str, ...]) -> str:
    return key if isinstance(key, str) else "/".join(part for part in key if part)
