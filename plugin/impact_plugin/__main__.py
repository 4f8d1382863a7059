"""The command ``impact-plugin``."""

import sys
from typing import Final

import cyclopts

from impact_plugin import __version__
from impact_plugin.cli.dead_letters import dead_letters
from impact_plugin.cli.doctor import doctor
from impact_plugin.cli.explain import explain
from impact_plugin.cli.fake_impact import fake_impact
from impact_plugin.cli.forget import forget
from impact_plugin.cli.load import load
from impact_plugin.cli.record import record
from impact_plugin.cli.register import register
from impact_plugin.cli.replay import replay
from impact_plugin.cli.serve import serve
from impact_plugin.cli.validate import validate
from impact_plugin.errors import ImpactPluginError

UNUSABLE: Final = 2
"""Exit code when input, settings or configuration cannot be used."""

app = cyclopts.App(
    name="impact-plugin",
    help="Connect a self-hosted analytics router to impact.com.",
    version=__version__,
)
app.command(serve)
app.command(validate)
app.command(doctor)
app.command(explain)
app.command(record)
app.command(replay)
app.command(load)
app.command(dead_letters)
app.command(forget)
app.command(register)
app.command(fake_impact)


def main() -> None:
    """Run the command line; a fault of the operator's making is one line on standard error, not a traceback."""
    try:
        code = app()
    except ImpactPluginError as error:
        print(f"impact-plugin: {error}", file=sys.stderr)
        sys.exit(UNUSABLE)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
