"""A plugin of pytest that lets the tests import the core with one mistake in it: ``MUTANT=ID pytest -p mutant_import``.

Everything is imported anew, so the mistake is everywhere, also in what is worked out once when a module is imported.
"""

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

from mutations import CORE, Mutant, all_mutants

MUTANT: Final = "MUTANT"


class _Loader(SourceFileLoader):
    """Loads the module with the mistake in the place of the file."""

    def __init__(self, name: str, mutant: Mutant) -> None:
        super().__init__(name, str(CORE / mutant.file))
        self._code = mutant.code()

    def get_code(self, fullname: str) -> CodeType:
        """The code with the mistake, whatever is in the file or was compiled before."""
        del fullname
        return self._code


class _Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._name = f"impact_transformers.{mutant.file.removesuffix('.py')}"
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answer for the one module."""
        del path, target
        if fullname != self._name:
            return None
        return spec_from_file_location(fullname, CORE / self._mutant.file, loader=_Loader(fullname, self._mutant))


def install(mutant: Mutant) -> None:
    """Let the core be imported with the mistake."""
    if mutant.kind != "row":
        sys.meta_path.insert(0, _Finder(mutant))
        return
    read = Path.read_text

    def read_text(self: Path, *args: Any, **options: Any) -> str:
        return mutant.text if self == CORE / mutant.file else read(self, *args, **options)

    Path.read_text = read_text  # type: ignore[method-assign]


if MUTANT in os.environ:
    install(next(one for one in all_mutants() if one.id == os.environ[MUTANT]))
