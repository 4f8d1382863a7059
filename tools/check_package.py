"""Build the wheel, check what is in it, install it alone in a clean environment and run the golden suite there."""

import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = {"impact_plugin", "impact_transformers"}
NEEDED: Final = {
    "impact_plugin/manifest.json",
    "impact_plugin/py.typed",
    "impact_plugin/store/decide.lua",
    "impact_transformers/py.typed",
    "impact_transformers/mappings/conversion.toml",
    "impact_transformers/mappings/item.toml",
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
    print("package: the wheel holds what it should and passes the golden suite on its own")
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


if __name__ == "__main__":
    sys.exit(main())
