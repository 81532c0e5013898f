"""Runs a compiled kernel over bands of rows on all cores.

Own threads instead of numba's: a kernel that holds no lock can be called from any number of Python threads at once,
which numba's workqueue layer does not allow, and no process-wide thread count is touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

__all__ = ["over_bands"]


@cache
def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=_cores(), thread_name_prefix="twin")


if hasattr(os, "register_at_fork"):
    # the threads do not survive a fork: a child that used this pool would wait for ever
    os.register_at_fork(after_in_child=_pool.cache_clear)


def over_bands(kernel: Callable[..., Any], rows: int, *arguments: Any) -> None:
    """Call ``kernel(first, last, *arguments)`` for bands that together cover ``rows`` rows.

    The kernel must write each row from that row's number alone: then the result does not depend on the bands.
    """
    # more bands than cores, so that a band with little to do does not leave a core idle
    bands = min(rows, 4 * _cores())
    if rows < 64 or _cores() == 1:
        kernel(0, rows, *arguments)
        return
    edges = [rows * band // bands for band in range(bands + 1)]
    for done in [
        _pool().submit(kernel, first, last, *arguments) for first, last in zip(edges[:-1], edges[1:], strict=True)
    ]:
        done.result()
