"""The command ``impact-plugin``."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

import cyclopts
from cyclopts import Parameter

from impact_plugin import __version__
from impact_plugin.errors import ImpactPluginError, SettingsError

UNUSABLE: Final = 2
"""Exit code when input, settings or configuration cannot be used."""

OUTPUT_CLOSED: Final = 128 + signal.SIGPIPE
"""Exit code when nobody reads the output any more, as shells report it for other programs."""

COMMANDS: Final = (
    "serve",
    "validate",
    "doctor",
    "explain",
    "replay",
    "record",
    "load",
    "dead-letters",
    "forget",
    "register",
    "fake-impact",
)
"""In the order of the help. The module of that name in ``cli`` holds the function, or the group, of that name."""


def make_app() -> cyclopts.App:
    """Build the command line; a command is imported when it is called, so that a worker loads nothing but ``serve``."""
    made = cyclopts.App(
        name="impact-plugin",
        help="Connect a self-hosted analytics router to impact.com.",
        version=__version__,
        version_flags=("--version", "-V"),
        version_format="plaintext",
        default_parameter=Parameter(negative=(), show_default=_shown_default),
        exit_on_error=False,
        print_error=False,
    )
    for place, name in enumerate(COMMANDS):
        module = name.replace("-", "_")
        made.command(f"impact_plugin.cli.{module}:{module}", name=name, sort_key=place)
    made.register_install_completion_command(help="Install completion for your shell (bash, zsh, fish, powershell).")
    for flag in ("--help", "--version", "--install-completion"):
        made[flag].group = "Options"
    return made


def _shown_default(default: object) -> str | None:
    """Leave out of the help that a flag is off or a text empty."""
    return str(default) if default else None


app: Final = make_app()


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line and exit; a mistake of the operator's is one line on standard error, not a traceback.

    ``words`` default to those that the process was started with.
    """
    words = sys.argv[1:] if words is None else words
    if {*words} <= {"--help", "-h"}:
        # The overview shows the first sentence of every command.
        app.resolved_commands()
    try:
        code = app(words)
    except SettingsError as error:
        sys.exit(_fail(*map(str, error.problems)))
    except ImpactPluginError as error:
        sys.exit(_fail(str(error)))
    except cyclopts.CycloptsError as error:
        text = str(error)
        sys.exit(_fail(text[:1].lower() + text[1:]))
    except BrokenPipeError:
        # The reader of the output, such as head, has seen enough; what Python still flushes at exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(OUTPUT_CLOSED)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(*messages: str) -> int:
    for message in messages:
        print(f"impact-plugin: {message}", file=sys.stderr)
    return UNUSABLE


if __name__ == "__main__":
    main()
