"""``make mutants``: makes small mistakes in the core, one after the other, and sees whether its tests notice.

A mistake that no test notices is a survivor: a test is missing, or the mistake changes nothing. ``tests/mutants`` lists
the survivors that are known, with the reason. What is done is written down after every mutant, so a run can be stopped
and continued; with ``--minutes`` it stops by itself. The order is the same random one every time, so the part that is
done is a fair sample of the whole.

Why not mutmut or cosmic-ray: they start the tests anew for each mutant or leave out decorated functions and tables, and
need hours for what takes minutes here. The tests are collected once; for each mutant a copy of the process (fork)
exchanges the code of the function, or the value of the table, and runs the tests that came through that place before.
What survives so but has an effect when modules are imported is tried again in a process of its own.
"""

import argparse
import functools
import gc
import os
import re
import select
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from random import Random
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
import pytest
from _pytest.runner import runtestprotocol

from mutant_import import MUTANT
from mutations import CORE, Mutant, all_mutants

ROOT: Final = Path(__file__).parents[1]
STATE: Final = ROOT / "build" / "mutants.ndjson"
KNOWN: Final = ROOT / "tests" / "mutants" / "survivors.toml"
TESTS: Final = "tests/transformers"
ENOUGH: Final = 0.95
"""The share of the mutants that are not equivalent that the tests must notice."""

SEED: Final = "mutants"
_BELOW: Final = f"{CORE}{os.sep}"
SHORTEST_WAIT: Final = 20.0
"""Seconds after which tests that do not end are taken for a mistake that was noticed."""

SLOW_SECONDS: Final = 600.0
Verdict: TypeAlias = Literal["killed", "survived", "unsure"]
"""Unsure: it survived in a copy of the process, but may have an effect when modules are imported."""

Place: TypeAlias = tuple[str, str, int]
"""File, qualified name and first line of a piece of code."""


class Result(msgspec.Struct, frozen=True):
    """What became of a mutant, and the test that noticed it."""

    id: str
    verdict: Verdict
    by: str = ""


class Survivor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Mutants of one place that survive, and why; equivalent ones change nothing that anybody could see."""

    file: str
    place: str
    what: list[str]
    why: str
    equivalent: bool = True


class _Budget:
    """Says whether there is time left; the end comes with a signal, too."""

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + minutes * 60
        self._stopped = False
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stopped = True

    @property
    def left(self) -> bool:
        """Whether another mutant may begin."""
        return not self._stopped and (self._end is None or time.monotonic() < self._end)


class _State:
    """The results so far, on disk after each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.results: dict[str, Result] = {}
        if path.exists():
            for line in path.read_bytes().splitlines():
                self._take(msgspec.json.decode(line, type=Result))

    def add(self, result: Result) -> None:
        """Write a result down; a later one of the same mutant counts."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(result) + b"\n")
        self._take(result)

    def _take(self, result: Result) -> None:
        self.results[result.id] = result


class _Covered(NamedTuple):
    """A test, the places of the core that it comes through, and how long it takes."""

    item: pytest.Item
    places: frozenset[Place]
    seconds: float
    generated: bool


class _Loop:
    """The loop that takes the place of pytest's own: all tests once, then the tests of each mutant in a copy."""

    def __init__(self, todo: Sequence[Mutant], state: _State, budget: _Budget) -> None:
        self._todo, self._state, self._budget = todo, state, budget
        self._at_import: set[Place] = set()
        self._tests: list[_Covered] = []
        self._functions: dict[Place, list[FunctionType]] = {}
        self._kills: dict[str, Counter[str]] = defaultdict(Counter)
        self.failure = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Iterator[None]:
        """Note what is done while the modules are imported: a copy comes too late for that."""
        sys.setprofile(_recorder(self._at_import))
        try:
            return (yield)
        finally:
            sys.setprofile(None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests once as they are, and then for each mutant."""
        self._measure(session.items)
        if not self.failure:
            _clear_caches()
            self._functions = _functions()
            for number, mutant in enumerate(self._todo, 1):
                if not self._budget.left:
                    break
                result = self._try(mutant)
                self._state.add(result)
                if number % 100 == 0:
                    print(f"{number:,} of {len(self._todo):,}", file=sys.stderr, flush=True)
        return True

    def _measure(self, items: Iterable[pytest.Item]) -> None:
        for item in items:
            generated = item.get_closest_marker("hypothesis") is not None
            places: set[Place] = set()
            began = time.perf_counter()
            if not generated:
                sys.setprofile(_recorder(places))
            try:
                failed = _fails(item)
            finally:
                sys.setprofile(None)
            if failed:
                self.failure = item.nodeid
                return
            self._tests.append(_Covered(item, frozenset(places), time.perf_counter() - began, generated))

    def _try(self, mutant: Mutant) -> Result:
        tests = self._tests_of(mutant)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _as_a_copy(mutant, self._functions, [one.item for one in tests], writer)
        os.close(writer)
        wait = max(SHORTEST_WAIT, 10 * sum(one.seconds for one in tests))
        said = _read_until(reader, child, time.monotonic() + wait)
        os.close(reader)
        if said == "survived":
            sure = mutant.kind == "function" and not self._acts_at_import(mutant)
            return Result(mutant.id, "survived" if sure else "unsure")
        if said == "unsure":
            return Result(mutant.id, "unsure")
        self._kills[mutant.place][said] += 1
        return Result(mutant.id, "killed", said)

    def _acts_at_import(self, mutant: Mutant) -> bool:
        return any(place[0] == mutant.file and _is_at(place, mutant) for place in self._at_import)

    def _tests_of(self, mutant: Mutant) -> list[_Covered]:
        """The tests that come through the place of the mutant, those first that noticed its neighbours."""
        if mutant.kind == "function":
            tests = [one for one in self._tests if one.generated or any(_is_at(place, mutant) for place in one.places)]
        else:
            tests = [one for one in self._tests if not one.generated]
        kills = self._kills[mutant.place]
        return sorted(tests, key=lambda one: (one.generated, -kills[one.item.nodeid], one.seconds))


def _is_at(place: Place, mutant: Mutant) -> bool:
    """Whether a piece of code is the mutant's function, or one within it."""
    file, name, _ = place
    plain = name.replace(".<locals>", "")
    return file == mutant.file and (plain == mutant.place or plain.startswith(f"{mutant.place}."))


def _recorder(places: set[Place]) -> Any:
    """Make a profiler that notes which code of the core is called."""
    # By identity: a piece of code is compared with all that is in it.
    known: dict[int, Place | None] = {}

    def record(frame: FrameType, event: str, arg: Any) -> None:
        del arg
        if event != "call":
            return
        code = frame.f_code
        place = known.get(id(code), ...)
        if place is ...:
            place = known[id(code)] = _place(code) if code.co_filename.startswith(_BELOW) else None
        if place is not None:
            places.add(place)

    return record


def _place(code: CodeType) -> Place:
    return Path(code.co_filename).name, code.co_qualname, code.co_firstlineno


def _fails(item: pytest.Item) -> bool:
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


def _clear_caches() -> None:
    """Forget what functions remember: it was worked out without the mistake."""
    for found in gc.get_objects():
        if isinstance(found, functools._lru_cache_wrapper):  # noqa: SLF001 - nothing public tells them apart
            found.cache_clear()


def _functions() -> dict[Place, list[FunctionType]]:
    """The functions of the core that there are, closures included, by where their code is."""
    found: dict[Place, list[FunctionType]] = defaultdict(list)
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and one.__code__.co_filename.startswith(_BELOW):
            found[_place(one.__code__)].append(one)
    return found


def _as_a_copy(
    mutant: Mutant, functions: dict[Place, list[FunctionType]], items: Iterable[pytest.Item], writer: int
) -> None:
    """Make the mistake in this process, run the tests until one notices, say which, and end."""
    said = "unsure"
    try:
        if _make(mutant, functions):
            said = next((item.nodeid for item in items if _fails(item)), "survived")
    except BaseException as error:  # noqa: BLE001 - whatever the mistake brought about, this process ends here
        said = f"{type(error).__name__} outside of a test"
    os.write(writer, said.encode()[:1000])
    os._exit(0)


def _read_until(reader: int, child: int, end: float) -> str:
    """What the copy says, or that it did not end."""
    while time.monotonic() < end:
        ready, _, _ = select.select([reader], [], [], 1.0)
        if ready:
            said = os.read(reader, 1000).decode()
            os.waitpid(child, 0)
            return said or "the end of the process"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "the time it takes"


def _make(mutant: Mutant, functions: dict[Place, list[FunctionType]]) -> bool:
    """Make the mistake in what is loaded; False where that is not possible."""
    if mutant.kind == "row":
        return _exchange_table(mutant)
    module = sys.modules[f"impact_transformers.{mutant.file.removesuffix('.py')}"]
    if mutant.kind == "table":
        return _exchange_value(mutant, module)
    before, after = _codes(_compiled(mutant.file)), _codes(mutant.code())
    if before.keys() != after.keys():
        return False
    changed = [place for place, code in after.items() if code != before[place] and place[1] != "<module>"]
    for place in changed:
        for function in functions.get(place, ()):
            if len(function.__code__.co_freevars) != len(after[place].co_freevars):
                return False
            function.__code__ = after[place]
    return any(place in functions for place in changed)


def _compiled(file: str) -> CodeType:
    path = CORE / file
    return compile(path.read_text(encoding="utf-8"), str(path), "exec")


def _codes(code: CodeType) -> dict[Place, CodeType]:
    """A piece of code and those within it, by place; two in one place are none."""
    found: dict[Place, CodeType] = {_place(code): code}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = _codes(constant)
            for place in inner.keys() & found.keys():
                del inner[place], found[place]
            found |= inner
    return found


def _exchange_table(mutant: Mutant) -> bool:
    fields = sys.modules["impact_transformers.fields"]
    table = msgspec.convert(tomllib.loads(mutant.text), fields.MappingTable)
    setattr(fields, Path(mutant.file).stem.upper(), table)
    return True


def _exchange_value(mutant: Mutant, module: ModuleType) -> bool:
    """Give every module that has the value the changed one, and what follows from it; only plain values."""
    if not _is_plain(getattr(module, mutant.place, module)):
        return False
    made: dict[str, Any] = {"__name__": module.__name__, "__file__": module.__file__}
    exec(mutant.code(), made)  # noqa: S102 - our own module, with a mistake in it
    for name, value in made.items():
        old = getattr(module, name, None)
        if name.startswith("__") or not _is_plain(value) or not _is_plain(old) or value == old:
            continue
        for other in [*sys.modules.values()]:
            names = [key for key, found in vars(other).items() if found is old] if isinstance(other, ModuleType) else ()
            for key in names:
                setattr(other, key, value)
    return True


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list | set | frozenset):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(entry) for key, entry in value.items())
    return value is None or type(value) in (str, bytes, int, float, bool, Decimal, re.Pattern)


def _try_anew(mutant: Mutant) -> Result:
    """Run the tests that are not generated in a process that imports the core with the mistake."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "mutant_import"]
    environment = os.environ | {
        MUTANT: mutant.id,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")]),
    }
    try:
        done = subprocess.run(
            [*command, "-m", "not campaign and not hypothesis", TESTS],
            env=environment, cwd=ROOT, capture_output=True, text=True, timeout=SLOW_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Result(mutant.id, "killed", "the time it takes")
    if done.returncode < 0:
        return Result(mutant.id, "unsure")
    if done.returncode == 0:
        return Result(mutant.id, "survived")
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return Result(mutant.id, "killed", found[1] if found else "the import")


def read_known(path: Path) -> dict[tuple[str, str, str], Survivor]:
    """The survivors that are listed, by file, place and change."""
    listed = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), dict[str, list[Survivor]])
    return {(one.file, one.place, what): one for one in listed.get("survivor", []) for what in one.what}


def _summary(mutants: Sequence[Mutant], state: _State) -> int:
    """Print what was found; returns the exit code."""
    known = read_known(KNOWN)
    done = [one for one in mutants if one.id in state.results and state.results[one.id].verdict != "unsure"]
    survivors = [one for one in done if state.results[one.id].verdict == "survived"]
    equivalent = [
        one
        for one in survivors
        if (found := known.get((one.file, one.place, one.what))) is not None and found.equivalent
    ]
    new = [one for one in survivors if (one.file, one.place, one.what) not in known]
    for one in new:
        print(f"survived: {one.name}: {one.what}  [{one.id}]")
    for kind in ("function", "table", "row"):
        number, left = (sum(one.kind == kind for one in some) for some in (done, survivors))
        print(f"{kind}s: {number - left:,} of {number:,} noticed")
    counted = len(done) - len(equivalent)
    share = (len(done) - len(survivors)) / counted if counted else 1.0
    part = f"{len(done):,} of {len(mutants):,} mutants tried"
    print(
        f"{part}; {len(equivalent):,} equivalent; {share:.1%} of the others noticed; {len(new):,} survivors to look at"
    )
    return 0 if share >= ENOUGH and not new else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="stop after this time; the next run continues")
    parser.add_argument("--sample", type=int, help="try only so many, always the same")
    parser.add_argument("--only", default="", help="try only mutants whose file and place contain this")
    parser.add_argument("--again", action="store_true", help="try those again that survived before")
    parser.add_argument("--state", type=Path, default=STATE, help="where the results are written down")
    return parser.parse_args()


def main() -> int:
    """Try the mutants that were not tried before; returns the exit code."""
    options = _options()
    state, budget = _State(options.state), _Budget(options.minutes)
    mutants = [one for one in all_mutants() if options.only in one.name]
    Random(SEED).shuffle(mutants)
    mutants = mutants[: options.sample]
    wanted = ("survived", "unsure") if options.again else ()
    todo = [one for one in mutants if one.id not in state.results or state.results[one.id].verdict in wanted]
    if todo:
        loop = _Loop(todo, state, budget)
        words = ["-q", "-p", "no:cacheprovider", "--hypothesis-profile", "quick", TESTS]
        with_output = pytest.main(words, plugins=[loop])
        if loop.failure or with_output not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            print(f"the tests fail without any mistake: {loop.failure or with_output}", file=sys.stderr)
            return 2
    for one in mutants:
        if one.id in state.results and state.results[one.id].verdict == "unsure" and budget.left:
            state.add(_try_anew(one))
    return _summary(mutants, state)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
