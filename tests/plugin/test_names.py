"""What holds for all of our classes: a public name is used once, and every exception has our base."""

import ast
import importlib
import inspect
import pkgutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import impact_plugin
from impact_plugin.errors import ImpactPluginError

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "plugin" / "impact_plugin", ROOT / "transformers" / "impact_transformers")


def classes() -> Iterator[tuple[str, str]]:
    """Every class that stands in a module by itself, with the file it stands in."""
    for package in PACKAGES:
        for file in sorted(package.rglob("*.py")):
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef):
                    yield node.name, str(file.relative_to(ROOT))


def modules() -> Iterator[ModuleType]:
    """Every module of the plugin, imported."""
    for found in pkgutil.walk_packages(impact_plugin.__path__, "impact_plugin."):
        yield importlib.import_module(found.name)


def test_a_public_class_name_occurs_once() -> None:
    """Whoever searches for a name finds one class."""
    places = defaultdict(list)
    for name, file in classes():
        if not name.startswith("_"):
            places[name].append(file)

    assert len(places) > 100
    assert {} == {name: files for name, files in places.items() if len(files) > 1}


def test_every_exception_of_the_plugin_has_its_base() -> None:
    """One clause catches all that is ours, and nothing else."""
    found = {
        one
        for module in modules()
        for _, one in inspect.getmembers(module, inspect.isclass)
        if issubclass(one, BaseException) and one.__module__.startswith("impact_plugin.")
    }

    assert len(found) > 20
    assert set() == {one for one in found if not issubclass(one, ImpactPluginError)}
