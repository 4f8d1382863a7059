"""``impact-plugin register``: make the plugin known to a router."""

from pathlib import Path
from typing import Any, Final

import cyclopts
import msgspec

from impact_plugin.cli.inputs import read_config
from impact_plugin.config.manifest import load_manifest
from impact_plugin.errors import ImpactPluginError
from impact_plugin.files import write_whole
from impact_plugin.registration import rudderstack as definitions
from impact_plugin.registration import senders

REFUSED: Final = 1
"""Exit code when the control plane would not save the configuration."""

register = cyclopts.App(name="register", help="Make the plugin known to a router: files from the manifest, or a guide.")


class RegisterError(ImpactPluginError):
    """The command cannot be carried out as it was given."""


@register.command
def rudderstack(
    *,
    out: Path = Path("rudderstack"),
    type: str | None = None,  # noqa: A002 - the option's name
    display_name: str | None = None,
    check: Path | None = None,
) -> int:
    """Write RudderStack's destination definition, a workspace for file mode and the router's environment.

    Parameters
    ----------
    out
        Folder for db-config.json, schema.json, ui-config.json, workspaceConfig.json and rudder-server.env.
    type
        Type of the destination; default IMPACT, which replaces the built-in one without any registration. Another one
        must be named in rudder.destination_types too.
    display_name
        Name that people see, and events in their integrations object; must differ from other destinations'.
    check
        Write nothing; tell whether the control plane would save this configuration of a destination (JSON or TOML).
        Needs the extra impact-plugin[register].
    """
    manifest = load_manifest()
    if check is not None:
        return _check(check, definitions.schema(manifest)["configSchema"])
    name = manifest.destination_type if type is None else type
    if not definitions.NAME.fullmatch(name):
        raise RegisterError(f"--type: {name!r} is not a name of letters, digits and _, 64 at most")
    shown = display_name or (definitions.DISPLAY_NAME if type is None else f"{definitions.DISPLAY_NAME} ({name})")
    for file, content in definitions.files(manifest, name, shown).items():
        _write(out / file, content)
        print(f"wrote {out / file}")
    return 0


@register.command
def jitsu() -> None:
    """Print what to fill in at Jitsu, and the source that goes with it."""
    print(senders.text("jitsu"))


@register.command
def segment() -> None:
    """Print what to fill in at Segment, and the source that goes with it."""
    print(senders.text("segment"))


def _write(path: Path, content: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.encode())
    except OSError as error:
        raise RegisterError(f"{path}: cannot be written: {error.strerror}") from error


def _check(path: Path, schema: dict[str, Any]) -> int:
    """Print what the control plane would say, a line a mistake; values are not shown, one may be the token."""
    try:
        from jsonschema import Draft7Validator  # noqa: PLC0415 - an extra
    except ImportError:
        raise RegisterError("--check: needs the package jsonschema: pip install 'impact-plugin[register]'") from None
    mistakes = sorted(Draft7Validator(schema).iter_errors(read_config(path)), key=lambda mistake: mistake.json_path)
    for mistake in mistakes:
        rule = f"{mistake.validator} {msgspec.json.encode(mistake.validator_value).decode()}"
        told = mistake.message if mistake.validator == "required" else f"does not fit {rule[:200]}"
        print(f"{path}: {mistake.json_path}: {told}")
    if not mistakes:
        print(f"{path}: the control plane would save it")
    return REFUSED if mistakes else 0
