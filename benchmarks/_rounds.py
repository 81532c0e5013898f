"""Comparing how long tasks take on a machine that is never quite idle."""

import time
from collections.abc import Callable


def fastest(rounds: int, *tasks: Callable[[], object]) -> list[float]:
    """Return the shortest time of each task in seconds, the tasks taking turns."""
    times: list[list[float]] = [[] for _ in tasks]
    for _ in range(rounds):
        for task, taken in zip(tasks, times, strict=True):
            began = time.perf_counter()
            task()
            taken.append(time.perf_counter() - began)
    return [min(taken) for taken in times]
