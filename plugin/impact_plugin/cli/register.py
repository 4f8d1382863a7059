"""``impact-plugin register``: make the plugin known to a router."""

from pathlib import Path
from typing import Any

import cyclopts
import msgspec

from impact_plugin.cli.destinations import read_configuration
from impact_plugin.cli.errors import CommandError
from impact_plugin.cli.exit_codes import DONE, FAILED
from impact_plugin.cli.options import Json, Quiet
from impact_plugin.cli.output import Output, write_text
from impact_plugin.config.manifest import load_manifest
from impact_plugin.registration import rudderstack as definitions
from impact_plugin.registration import senders

register = cyclopts.App(
    name="register",
    help="""Make the plugin known to a router: write RudderStack's files, or print what to fill in elsewhere.

```sh
impact-plugin register rudderstack --out rudderstack
impact-plugin register jitsu
```
""",
)


class _Mistake(msgspec.Struct, frozen=True):
    path: str
    message: str


@register.command
def rudderstack(
    *,
    out: Path = Path("rudderstack"),
    type: str | None = None,  # noqa: A002 - the option's name
    display_name: str | None = None,
    check: Path | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Write RudderStack's destination definition, a workspace for file mode, and the router's environment.

    Exit code 0: written, or the control plane would save the configuration; 1: it would not; 2: an option or a file
    cannot be used.

    ```sh
    impact-plugin register rudderstack --out rudderstack
    impact-plugin register rudderstack --check destination.json
    ```

    Parameters
    ----------
    out
        Folder for db-config.json, schema.json, ui-config.json, workspaceConfig.json and rudder-server.env.
    type
        Type of the destination; default IMPACT, which replaces the built-in one without any registration. List another
        type in rudder.destination_types too.
    display_name
        Name that people see, and that events use in their integrations object; unique among destinations.
    check
        Write nothing, and check whether the control plane would save this destination's configuration, JSON or TOML.
        Needs the extra impact-plugin[register].
    """
    manifest, output = load_manifest(), Output(as_json=json, quiet=quiet)
    if check is not None:
        return _check(output, check, definitions.schema(manifest)["configSchema"])
    name = manifest.destination_type if type is None else type
    if not definitions.NAME.fullmatch(name):
        raise CommandError(f"--type: {name!r} must be a name of at most 64 letters, digits and _")
    shown = display_name or (definitions.DISPLAY_NAME if type is None else f"{definitions.DISPLAY_NAME} ({name})")
    written = []
    for file, content in definitions.files(manifest, name, shown).items():
        _write(out / file, content)
        written.append(str(out / file))
        output.line(f"wrote {out / file}")
    output.result({"files": written})
    return DONE


@register.command
def jitsu() -> None:
    """Print what to fill in at Jitsu, and the source to add to your file.

    ```sh
    impact-plugin register jitsu
    ```
    """
    print(senders.text("jitsu"))


@register.command
def segment() -> None:
    """Print what to fill in at Segment, and the source to add to your file.

    ```sh
    impact-plugin register segment
    ```
    """
    print(senders.text("segment"))


def _write(path: Path, content: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {error.strerror}") from error
    write_text(path, content)


def _check(output: Output, path: Path, schema: dict[str, Any]) -> int:
    """Print what the control plane would refuse, without values, since one may be the token."""
    try:
        from jsonschema import Draft7Validator  # noqa: PLC0415 - an extra
    except ImportError:
        raise CommandError("--check: needs jsonschema; pip install 'impact-plugin[register]'") from None
    errors = sorted(Draft7Validator(schema).iter_errors(read_configuration(path)), key=lambda error: error.json_path)
    mistakes = [_Mistake(error.json_path, _message(error)) for error in errors]
    for mistake in mistakes:
        output.line(f"error: {path}: {mistake.path}: {mistake.message}")
    if not mistakes:
        output.line(f"ok: {path}: the control plane would save it")
    output.result({"file": str(path), "mistakes": mistakes})
    return FAILED if mistakes else DONE


def _message(error: Any) -> str:
    if error.validator == "required":
        return str(error.message)
    rule = f"{error.validator} {msgspec.json.encode(error.validator_value).decode()}"
    return f"does not fit {rule[:200]}"
