"""Build the wheel, check what is in it, install it alone in a clean environment and run the golden suite there."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = {"impact_plugin", "impact_transformers"}
TIMEOUT: Final = 30.0
NEEDED: Final = {
    "impact_plugin/manifest.json",
    "impact_plugin/py.typed",
    "impact_transformers/py.typed",
    "impact_transformers/mappings/conversion.toml",
    "impact_transformers/mappings/item.toml",
    "impact_transformers/mappings/line.toml",
    "impact_transformers/mappings/order.toml",
    "impact_transformers/mappings/page_load.toml",
}
TEST_TOOLS: Final = ("iniconfig", "packaging", "pluggy", "pygments", "pytest", "pytest-asyncio", "typing-extensions")


def main() -> int:
    """Run the check; returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(work), str(ROOT)])
        (wheel,) = work.glob("*.whl")
        _check_contents(wheel)
        python = _clean_environment(work, wheel)
        _run_golden(work, python)
        _run_image(work)
    print("package: the wheel holds what it should, passes the golden suite and runs as the image does, on its own")
    return 0


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"package: {' '.join(command[:6])} failed:\n{done.stdout}\n{done.stderr}")


def _check_contents(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    if tops != PACKAGES:
        raise SystemExit(f"package: the wheel holds {sorted(tops)} at its top, not {sorted(PACKAGES)}")
    if not names >= NEEDED:
        raise SystemExit(f"package: the wheel lacks {sorted(NEEDED - names)}")


def _clean_environment(work: Path, wheel: Path) -> str:
    """An environment with the locked run-time dependencies, the wheel and pytest; nothing of the source tree."""
    venv.create(work / "venv", with_pip=True)
    python = str(work / "venv" / "bin" / "python")
    tools = work / "tools.lock"
    tools.write_text(_blocks((ROOT / "requirements" / "dev.lock").read_text(encoding="utf-8")), encoding="utf-8")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--require-hashes", "-r", str(ROOT / "requirements" / "runtime.lock")])
    _run([*pip, "--require-hashes", "--no-deps", "-r", str(tools)])
    _run([*pip, "--no-deps", str(wheel)])
    return python


def _blocks(lock: str) -> str:
    """The entries of the lock that pytest needs."""
    entries = re.split(r"\n(?=\S)", lock)
    return "\n".join(entry for entry in entries if entry.split("==")[0] in TEST_TOOLS)


def _run_golden(work: Path, python: str) -> None:
    tests = work / "tests"
    shutil.copytree(ROOT / "tests" / "golden", tests / "golden")
    (tests / "transformers").mkdir()
    shutil.copy(ROOT / "tests" / "transformers" / "test_golden.py", tests / "transformers")
    _run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)], cwd=work)
    _run([python, "-m", "impact_plugin", "--version"], cwd=work)


def _run_image(work: Path) -> None:
    """Start what the image starts, with its environment; its health check must pass, and SIGTERM end it with 0."""
    lines = re.sub(r"\\\n\s*", "", (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")).splitlines()
    last = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM ")) :]

    def told(name: str) -> list[str]:
        return [line.removeprefix(name).strip() for line in last if line.startswith(f"{name} ")]

    variables = dict(line.split("=", 1) for line in told("ENV"))
    # Its ports and its folder are those of a container.
    variables |= {"IMPACT_PLUGIN__STATE__DIR": str(work / "state"), "PATH": f"{work}/venv/bin:{os.environ['PATH']}"}
    variables |= {f"IMPACT_PLUGIN__SERVER__{name}HOST": "127.0.0.1" for name in ("", "OPERATOR_", "INGEST_")}
    check = json.loads(told("HEALTHCHECK")[0].partition("CMD ")[2])
    command = [*json.loads(told("ENTRYPOINT")[0]), *json.loads(told("CMD")[0])]
    environment = {**os.environ, **variables}
    with subprocess.Popen(command, env=environment, cwd=work, stderr=subprocess.PIPE, text=True) as process:
        try:
            _until_healthy(check, environment, process)
            process.terminate()
            code = process.wait(TIMEOUT)
        finally:
            process.kill()
    if code != 0:
        raise SystemExit(f"package: {' '.join(command)} ended with {code} after SIGTERM")


def _until_healthy(check: Sequence[str], environment: dict[str, str], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        if subprocess.run(check, env=environment, capture_output=True, check=False).returncode == 0:
            return
        if process.poll() is not None:
            told = process.stderr.read() if process.stderr is not None else ""
            raise SystemExit(f"package: the image's command ended with {process.returncode}:\n{told}")
        time.sleep(0.2)
    raise SystemExit("package: the image's health check did not pass")


if __name__ == "__main__":
    sys.exit(main())
