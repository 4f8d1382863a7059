"""``impact-plugin doctor``: what is wrong around the service, in a summary that can be pasted anywhere."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from impact_plugin.__main__ import app
from impact_plugin.app import Service
from impact_plugin.testing.fake_impact import FakeImpact

Start = Callable[..., Awaitable[Service]]

SECRETS = ("test-token-secret", "a-key-of-sixteen-letters", "the-secret-of-the-state", "IRtest")


def config(impact: str, folder: Path, operator_url: str, more: str = "") -> str:
    """A file with a source, a destination, secrets and addresses."""
    return f"""
[server]
operator_port = {operator_url.rpartition(":")[2]}
[impact]
tracking_url = "{impact}"
api_url = "{impact}"
[state]
dir = "{folder}"
secret = "the-secret-of-the-state"
[sources.shop]
keys = ["a-key-of-sixteen-letters"]
[destinations.eu]
accountSID = "IRtest"
apiKey = "test-token-secret"
campaignId = "23224"
{more}
"""


async def run(file: Path, *words: str) -> int:
    """Call the command in this process."""
    code = await app.run_async(["doctor", "--config", str(file), *words], result_action="return_value")
    assert isinstance(code, int)
    return code


async def test_all_is_well(
    tmp_path: Path, service: Service, impact: FakeImpact, upstream: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything is looked at and found good; no secret and no account stands in the summary."""
    file = tmp_path / "impact.toml"
    more = f'[rudder]\nupstream = "{upstream.url}"\n'
    file.write_text(config(impact.url, tmp_path / "var", service.operator_url, more), encoding="utf-8")
    code = await run(file)
    printed = capsys.readouterr().out

    assert code == 0, printed
    for check in ("connection to", "clock", "credentials of eu", "stock transformer", "this service", "state folder"):
        assert f"ok: {check}" in printed
    assert '"(set)"' in printed
    assert not [secret for secret in SECRETS if secret in printed]


async def test_what_is_wrong_is_told_with_what_to_do(
    tmp_path: Path, impact: FakeImpact, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No upstream, no service, no room on the disk, a clock that is wrong; exit code 1."""
    monkeypatch.setattr("impact_plugin.cli.checks.time", lambda: 4_000_000_000.0)
    file = tmp_path / "impact.toml"
    more = '[rudder]\nupstream = "http://127.0.0.1:9"\n[spool]\nmin_free_mb = 1000000\n'
    file.write_text(config(impact.url, tmp_path / "var", "http://127.0.0.1:9", more), encoding="utf-8")
    code = await run(file)
    printed = capsys.readouterr().out

    assert code == 1
    assert "error: stock transformer: no reply" in printed
    assert "warning: this service: not running" in printed
    assert "error: disk:" in printed
    assert "s ahead of" in printed
    assert "use NTP" in printed
    assert "warning: state folder:" in printed


async def test_a_configuration_that_cannot_be_used_is_told_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and nobody is asked anything."""
    file = tmp_path / "impact.toml"
    file.write_text("[server]\nprot = 1\n", encoding="utf-8")

    assert await run(file) == 2
    assert "did you mean port?" in capsys.readouterr().out


async def test_json_is_one_object(tmp_path: Path, impact: FakeImpact, capsys: pytest.CaptureFixture[str]) -> None:
    """And quiet is nothing at all."""
    file = tmp_path / "impact.toml"
    file.write_text(config(impact.url, tmp_path / "var", "http://127.0.0.1:9"), encoding="utf-8")
    await run(file, "--json")
    printed = capsys.readouterr().out
    told = json.loads(printed)

    assert {check["name"] for check in told["checks"]} >= {"clock", "credentials of eu", "disk"}
    assert told["settings"]["state.secret"] == "(set)"
    assert not [secret for secret in SECRETS if secret in printed]
    await run(file, "--quiet")
    assert capsys.readouterr().out == ""
