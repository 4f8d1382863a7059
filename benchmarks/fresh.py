"""Measuring in a process of its own: memory that another measurement freed would hide what this one keeps."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

STATM: Final = Path("/proc/self/statm")


def run_fresh(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call the function in a new process, which starts with nothing but the imports of the function's module."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        return other.submit(function, *arguments).result()


def resident_bytes() -> int:
    """Resident memory of this process. Linux only: others tell no more than the peak."""
    pages = int(STATM.read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
