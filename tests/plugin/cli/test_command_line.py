"""The command line as a whole: what is imported when, the overview, mistakes, and completion for shells."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cyclopts
import pytest

import impact_plugin.cli
from impact_plugin import __version__
from impact_plugin.__main__ import COMMANDS, app, main
from impact_plugin.config.settings import SETTINGS

MODULES = {f"impact_plugin.cli.{name.replace('-', '_')}" for name in COMMANDS}

TALKS_TO_PEOPLE_ONLY = {("serve",), ("fake-impact",), ("register", "jitsu"), ("register", "segment")}
"""Commands that run until somebody stops them, and guides."""

EXAMPLE = re.compile(r"^ (impact-plugin .*\S)\s*$", re.MULTILINE)
AFTERWARDS = """
import sys
from impact_plugin.__main__ import main
sys.argv = ["impact-plugin", *sys.argv[1:]]
try:
    main()
except SystemExit:
    print("\\nIMPORTED", *sys.modules)
"""


def imported(*words: str) -> set[str]:
    """The modules that a process has imported when the command ends."""
    command = [sys.executable, "-c", AFTERWARDS, *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(ended.stdout.partition("\nIMPORTED ")[2].split())


def commands(command: cyclopts.App, *before: str) -> Iterator[tuple[tuple[str, ...], cyclopts.App]]:
    """Every command and its own, with the words that call it."""
    for name in command:
        if not name.startswith("-"):
            yield (*before, name), command[name]
            yield from commands(command[name], *before, name)


EVERY = dict(commands(app))
CALLED = {words: command for words, command in EVERY.items() if command.default_command is not None}


def options(command: cyclopts.App) -> dict[str, cyclopts.Argument]:
    """The options of a command by their first name."""
    found = command.assemble_argument_collection(parse_docstring=True)
    return {argument.name: argument for argument in found if argument.show}


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[object, str, str]:
    """Run the program; its exit code, and what it prints on standard output and standard error."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code, *capsys.readouterr()


def test_the_version_imports_no_command() -> None:
    """Nor anything else of the service."""
    ours = {name for name in imported("-V") if name.startswith(("impact_plugin", "impact_transformers"))}

    assert {"impact_plugin", "impact_plugin.__main__", "impact_plugin.errors"} >= ours


def test_a_command_imports_no_other_command() -> None:
    """A worker, which runs serve, has neither the stand-ins nor recorded traffic nor terminal output in memory."""
    found = imported("serve", "--port", "-1")
    rooms = ("impact_plugin.testing", "impact_plugin.traffic", "impact_plugin.cli.output")

    assert {"impact_plugin.cli.serve"} == found & MODULES
    assert [] == sorted(name for name in found if name.startswith(rooms))


def test_the_help_of_a_command_imports_no_other_command() -> None:
    """Only the overview takes a sentence from each."""
    assert {"impact_plugin.cli.register"} == imported("register", "--help") & MODULES


def test_every_command_has_a_module_of_its_name() -> None:
    """The import contracts say which other modules there are: what commands share."""
    files = {path.stem for path in Path(impact_plugin.cli.__path__[0]).glob("*.py")}

    assert {name.replace("-", "_") for name in COMMANDS} <= files


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)], ids=["", "--help", "-h"])
def test_the_overview(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    """Every command with a sentence, serve first; then the options."""
    code, out, _ = run(capsys, *words)
    rows = [line.strip("│ ").split(maxsplit=1) for line in out.splitlines() if line.startswith("│ ")]
    rows = [row for row in rows if row and row[0] in {*COMMANDS, "--help", "--version", "--install-completion"}]

    assert 0 == code
    assert list(COMMANDS) == [row[0] for row in rows[: len(COMMANDS)]]
    assert all(len(row) == 2 for row in rows)
    assert {"--help", "--version", "--install-completion"} == {row[0] for row in rows[len(COMMANDS) :]}


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_the_version(capsys: pytest.CaptureFixture[str], word: str) -> None:
    """One line."""
    app([word], result_action="return_value")

    assert f"{__version__}\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("srv",), 'unknown command "srv". Did you mean "serve"?'),
        (("serve", "--prot", "1"), "unknown option: --prot. Did you mean --port?"),
        (("serve", "--port", "x"), 'invalid value for --port: unable to convert "x" into int.'),
        (("load", "file", "--via", "mail"), 'invalid value "mail" for --via. Choose from: "processor"'),
        (("explain",), 'command "explain" parameter --file requires an argument.'),
        (("serve", "--config", "/none.toml"), "/none.toml: "),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str) -> None:
    """On standard error, with exit code 2, whoever finds it: the parser, a file, a setting."""
    code, out, err = run(capsys, *words)

    assert (2, "") == (code, out)
    assert err.startswith(f"impact-plugin: {said}")
    assert 1 == len(err.splitlines())


def test_every_mistake_of_the_settings_is_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """So that a file is corrected once, and not once for each start."""
    file = tmp_path / "impact.toml"
    file.write_text("[server]\nport = -1\n[log]\nlevel = 'loud'\n", encoding="utf-8")
    code, _, err = run(capsys, "serve", "--config", str(file), "--workers", "2")

    assert 2 == code
    assert [
        "impact-plugin: server.port: must be a whole number between 0 (any free port) and 65,535",
        "impact-plugin: log.level: must be one of debug, info, warning, error",
        f"impact-plugin: --workers: must be {SETTINGS['server.workers'].allowed}; one process owns the state in ",
    ] == [line.partition("state.dir")[0] for line in err.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shell: str
) -> None:
    """And options of commands that were not imported before."""
    monkeypatch.setenv("HOME", str(tmp_path))
    script = tmp_path / "completion"
    app(["--install-completion", "--shell", shell, "--output", str(script)], result_action="return_value")
    text = script.read_text(encoding="utf-8")

    assert str(script) in capsys.readouterr().out
    assert [] == [word for word in (*COMMANDS, "purge", "operator-port") if word not in text]


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_help_has_an_example_that_can_be_typed(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """Of the command itself, or of one of its own, with options that there are."""
    code, out, _ = run(capsys, *words, "--help")
    examples = [shlex.split(example)[1:] for example in EXAMPLE.findall(out)]

    assert 0 == code
    assert examples
    for example in examples:
        app.parse_args(example)
        assert list(words) == example[: len(words)]


def test_what_prints_facts_prints_them_as_json() -> None:
    """And is silent with --quiet. An export is JSON anyway."""
    for words in CALLED.keys() - TALKS_TO_PEOPLE_ONLY:
        expected = {"--quiet"} if words == ("dead-letters", "export") else {"--json", "--quiet"}

        assert expected <= set(options(CALLED[words])), words


@pytest.mark.parametrize("command", ["explain", "replay", "validate"])
def test_quiet_is_nothing_on_standard_output(capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str) -> None:
    """Also together with --json; without it there is something to be quiet about."""
    file = tmp_path / "file.json"
    file.write_text('{"type":"page","anonymousId":"a"}', encoding="utf-8")
    loud, quiet, both = (run(capsys, command, str(file), *words) for words in ((), ("--quiet",), ("--quiet", "--json")))

    assert loud[1]
    assert (loud[0], "") == quiet[:2] == both[:2]


def test_an_option_is_the_same_wherever_it_is() -> None:
    """Its short name and the form of its value; and where it needs no other words, its sentence."""
    seen: dict[str, tuple[tuple[str, ...], object]] = {}
    sentences: dict[str, set[str]] = {}
    for command in CALLED.values():
        for name, argument in options(command).items():
            form = (
                argument.names,
                str(argument.hint).removesuffix(" | None").removeprefix("<class '").removesuffix("'>"),
            )

            assert form == seen.setdefault(name, form), name
            sentences.setdefault(name, set()).add(argument.parameter.help or "")
    for name in ("--quiet", "--key", "--anywhere"):
        assert 1 == len(sentences[name]), name


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    """``explain | head`` ends as other programs do: without a traceback."""
    file = tmp_path / "events.ndjson"
    file.write_bytes(b'{"type":"page","anonymousId":"a"}\n' * 2000)
    command = f'"{sys.executable}" -m impact_plugin explain "{file}" --json | head -n 1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    first, code = done.stdout.splitlines()

    assert (code, done.stderr) == ("141", "")
    assert first.startswith('{"event":1,')
