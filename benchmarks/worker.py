"""What the process of one system does: build a cell's layer, call it, time it, hand over its answer."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.programs import Array, Cell, program

_LEAST = 0.03
"""Seconds that one repetition lasts at least, by repeating the call."""

_now: dict[str, Any] = {}
"""The layer at work: `run`, its costs, seconds of its last call."""


def prepare(system: str, cell: Cell) -> dict[str, float]:
    """Build, call twice. Returns seconds of building and the first call, and of the second."""
    if not _now:
        peers.SYSTEMS[system].build(program(Cell("a", 1)))  # imports what it needs
    data = program(cell)
    cost = data.cost[: peers.SYSTEMS[system].given(cell)]
    began = time.perf_counter()
    run: Callable[[Array], tuple[Array, Array]] = peers.SYSTEMS[system].build(data)
    run(cost)
    started = time.perf_counter() - began
    began = time.perf_counter()
    run(cost)
    steady = time.perf_counter() - began
    _now.update(run=run, cost=cost, steady=steady)
    return {"started": started, "steady": steady}


def repetition() -> tuple[float, float]:
    """Seconds and CPU seconds of a call, over as many as can be timed, after one that is not."""
    run, cost, steady = _now["run"], _now["cost"], _now["steady"]
    calls = max(1, math.ceil(_LEAST / max(steady, 1e-7)))
    if steady < 1.0:
        run(cost)
    gc.disable()
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            run(cost)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    finally:
        gc.enable()
    _now["steady"] = wall / calls
    return wall / calls, cpu / calls


def answer(samples: int) -> tuple[Array, Array]:
    """Decisions and gradients of the first samples; NaN where the system says that it failed."""
    x, gradient = _now["run"](_now["cost"])
    return np.array(x[:samples], float), np.array(gradient[:samples], float)
