"""Every example of the README and of the pages is run as it stands, in a shell, from a clone; what they say comes out.

Blocks of a page are one session: what one starts the next one uses. ``sh`` blocks are run, ``text`` blocks name lines
that must have come out before them, and ``console`` blocks are for what no test can have (systemd, an hour, a network).
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from impact_plugin.config.manifest import load_manifest
from impact_transformers import Destination, compile_destination

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
GUIDES: Final = sorted([*(DOCS / "tutorial").glob("*.md"), *(DOCS / "how-to").glob("*.md")])
PAGES: Final = [ROOT / "README.md", *GUIDES, DOCS / "dead-letters.md", DOCS / "operations.md", DOCS / "sizing.md"]
MOST_WORDS: Final = 900
"""Of the README: it says what this is and where to go on, the pages say the rest."""

FENCE: Final = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
SECONDS: Final = 120.0
PORTS: Final = {"9090": "PORT", "9091": "OPERATOR_PORT", "9092": "INGEST_PORT"}
ELSEWHERE: Final = ("systemctl", "impact-plugin record", "--host 0.0.0.0", "--until 14d")
"""What a console block may be about: an engine, an hour of recording, a network, two weeks."""

DATA: Final = ("toml",)
"""Blocks of the README that are no commands: its file is served by the commands below it."""

BEFORE: Final = {
    "README": """
mkdir -p .venv && ln -s "$(dirname "$(command -v impact-plugin)")" .venv/bin
cat > impact.toml <<'EOF'
{toml}
EOF
""",
    "dead-letters": """
impact-plugin fake-impact &
cat > impact.toml <<'EOF'
[sources.shop]
keys = ["the-key-of-the-shop"]
[destinations.eu]
accountSID = "IRabc"
apiKey = "the-token"
campaignId = "23224"
EOF
export SHOP_KEY=the-key-of-the-shop
impact-plugin serve --config impact.toml 2> service.log &
SERVICE_PID=$!
until curl -sf http://127.0.0.1:9091/ready > /dev/null; do sleep 0.2; done
curl -s http://127.0.0.1:9092/webhook/shop -H "Authorization: Bearer $SHOP_KEY" -d '[{"messageId":"m-2"},{"type":
  "track","event":"Order Completed","messageId":"m-1","anonymousId":"a-1","properties":{"total":5,"currency":"EUR"}}]'
""",
}
"""What somebody who reads the page has: a file as above its example, or a service and what it could not deliver."""

SERVED: Final = """
python tools/run_day.py --port 9090 --operator-port 9091 --impact-port 9099 > run.log &
until grep -s Ctrl-C run.log > /dev/null; do sleep 0.2; done
"""
DEAD_AGAIN: Final = """
until impact-plugin dead-letters list --json --config impact.toml | grep missing_order_id > /dev/null; do true; done
"""
INSTEAD: Final = {
    "README": (
        ("make run     #", f"{SERVED}#"),
        ("make test    #", "#"),
        ("processor_request_compacted.json\n", "processor_request_compacted.json\nkill %1; wait %1 || true\n"),
    ),
    # It sends nothing, and shows where a request would go.
    "explain-an-event": (("impact-plugin explain", "env -u IMPACT_PLUGIN__IMPACT__API_URL impact-plugin explain"),),
    # What is retried is a dead letter again a moment later.
    "dead-letters": (("impact-plugin dead-letters export", f"{DEAD_AGAIN}impact-plugin dead-letters export"),),
}
"""Commands that take a terminal for themselves, or an eye that waits; make test would run this test again."""

CUT: Final = "cut here"


def blocks(page: Path) -> list[tuple[str, str]]:
    """The language and the text of every block."""
    found = []
    for indent, language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        found.append((language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)))
    return found


def on_ports(text: str, ports: dict[str, int]) -> str:
    """The example with free ports in the place of the usual ones."""
    for usual, port in ports.items():
        text = re.sub(rf"(127\.0\.0\.1:|port ){usual}\b", rf"\g<1>{port}", text)
    return text.replace("fake-impact &", f"fake-impact --port {ports['9099']} &")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_do_what_they_say(page: Path, tmp_path: Path, free_port: Callable[[], int]) -> None:
    """As one session of a shell that stops at the first failure."""
    ports = {usual: free_port() for usual in ("9090", "9091", "9092", "9099")}
    script: list[str] = []
    expected: list[list[str]] = []
    for language, text in blocks(page):
        if language == "sh":
            script.append(on_ports(instead(page, text), ports) + f"\necho; echo {CUT}")
            expected.append([])
        elif language == "text" and expected:
            expected[-1] += [line.strip() for line in text.splitlines() if line.strip()]
    if not script:
        pytest.fail("a how-to without an example that is run")
    output = run_script("\n".join([on_ports(before(page, tmp_path), ports), *script]), tmp_path, ports)
    parts = output.split(f"{CUT}\n")

    assert len(parts) == len(script) + 1, output
    for part, lines in zip(parts, expected, strict=False):
        for line in lines:
            assert line in part, output


def before(page: Path, folder: Path) -> str:
    """What is done before the first example."""
    (folder / "token").write_text("the-token", encoding="utf-8")
    toml = next((text for language, text in blocks(page) if language == "toml"), "")
    script = BEFORE.get(page.stem, "").replace("{toml}", toml)
    return script.replace("/run/secrets/impact_token", str(folder / "token"))


def instead(page: Path, text: str) -> str:
    """The example with what is done in the place of some commands."""
    for command, other in INSTEAD.get(page.stem, ()):
        text = text.replace(command, other)
    return text


def run_script(script: str, folder: Path, ports: dict[str, int]) -> str:
    """What the session says; fails when a command of it fails."""
    work = folder / "clone"
    work.mkdir()
    shutil.copytree(ROOT / "tools", work / "tools")
    shutil.copytree(ROOT / "tests" / "samples", work / "tests" / "samples")
    (work / "Makefile").write_text("install:\n\t@true\n", encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IMPACT_")}
    settings = {f"IMPACT_PLUGIN__SERVER__{name}": str(ports[usual]) for usual, name in PORTS.items()}
    for name in ("API_URL", "TRACKING_URL"):
        settings[f"IMPACT_PLUGIN__IMPACT__{name}"] = f"http://127.0.0.1:{ports['9099']}"
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # What a failing example leaves running would keep its output open.
    whole = f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-m", "-c", whole],
        cwd=work,
        env={**kept, **settings, "PATH": programs},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"not done within {SECONDS:.0f} s:\n{output}")
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_not_run_could_not_be(page: Path) -> None:
    """No example is kept from being run but for what no test can have."""
    for language, text in blocks(page):
        assert language in {"sh", "text", "console", *(DATA if page.stem == "README" else ())}, text
        if language == "console":
            assert any(word in text for word in ELSEWHERE), text


def test_no_command_stands_where_none_is_run() -> None:
    """Other pages show configuration, requests and answers; the recipes have tests of their own, which send them."""
    elsewhere = set(DOCS.rglob("*.md")) - set(PAGES)

    assert [] == sorted(page.name for page in elsewhere if {"sh", "console"} & {kind for kind, _ in blocks(page)})


def test_the_example_of_a_configuration_is_good() -> None:
    """It compiles, with the variable that it asks for."""
    found = dict(blocks(DOCS / "reference" / "configuration.md"))
    variables = {"IMPACT_VAR_TOKEN": "the-token"}
    destination = compile_destination(json.loads(found["json"]), load_manifest().configuration, variables)
    assert isinstance(destination, Destination)

    assert {"signed up", "product viewed"} <= set(destination.routes)


def test_the_readme_is_short() -> None:
    """Code and tables count."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= MOST_WORDS


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.stem)
def test_the_links_of_a_page_outside_of_the_site_lead_somewhere(page: Path) -> None:
    """Those of the site are checked when it is built."""
    for address in LINK.findall(page.read_text(encoding="utf-8")):
        name, _, anchor = address.partition("#")
        assert (ROOT / name).exists(), address
        assert not anchor or anchor in anchors_of(ROOT / name), address


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
