"""``impact-plugin record``: asks a running service, and writes a file that only its owner can read."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from impact_plugin.__main__ import app
from impact_plugin.app import Service
from impact_plugin.cli.errors import CommandError
from impact_plugin.traffic.reading import Traffic, TrafficEvent


async def run(*words: str) -> int:
    """Call the command in this process."""
    code = await app.run_async(["record", *words], result_action="return_value")
    assert isinstance(code, int)
    return code


async def test_a_service_is_recorded(
    http: aiohttp.ClientSession,
    service: Service,
    item: Callable[..., Any],
    page: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """For as long as was asked for; then it can be replayed, and the command says how."""
    file = tmp_path / "r.ndjson.gz"
    recording = asyncio.create_task(run(str(file), "--url", service.operator_url, "--minutes", "0.02"))
    for _ in range(10):
        async with http.post(f"{service.url}/v0/destinations/impact", json=[item(page)]) as response:
            await response.read()
        await asyncio.sleep(0.05)

    assert await recording == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert any(isinstance(one, TrafficEvent) for one in Traffic([file]))
    assert f"impact-plugin replay {file}" in capsys.readouterr().out


async def test_a_file_that_is_there_is_kept(service: Service, tmp_path: Path) -> None:
    """Unless it is to be replaced."""
    file = tmp_path / "r.ndjson.gz"
    file.write_bytes(b"yesterday's")
    words = [str(file), "--url", service.operator_url, "--minutes", "0.005", "--quiet"]

    with pytest.raises(CommandError, match="already exists; --force"):
        await run(*words)
    assert file.read_bytes() == b"yesterday's"
    assert await run(*words, "--force") == 0
    assert file.read_bytes()[:2] == b"\x1f\x8b"


async def test_who_cannot_be_asked_is_told(service: Service, tmp_path: Path) -> None:
    """No service, a port of somebody else, a folder that is not there; no empty file stays behind."""
    file = tmp_path / "r.ndjson.gz"

    with pytest.raises(CommandError, match="does not answer"):
        await run(str(file), "--url", "http://127.0.0.1:9")
    assert not file.exists()
    with pytest.raises(CommandError, match="replied 503"):
        await run(str(file), "--url", service.url, "--force")
    with pytest.raises(CommandError, match="cannot be written"):
        await run(str(tmp_path / "none" / "r.gz"), "--url", service.operator_url)
