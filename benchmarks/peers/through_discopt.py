"""discopt, program by program: `differentiable_solve_l3`, as in its tutorial."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from benchmarks.programs import Array, Program


def discopt(program: Program) -> Any:
    """One model, its parameter set and solved for each sample; its Jacobian gives the gradient."""
    os.environ["JAX_ENABLE_X64"] = "1"  # as its tutorial has it
    import discopt.modeling as dm
    from discopt._relax.differentiable import differentiable_solve_l3

    n = program.n
    m = dm.Model("row")
    x = m.continuous("x", shape=(n,), lb=program.lb.tolist(), ub=program.ub.tolist())
    c = m.parameter("cost", value=np.zeros(n))
    curved = dm.sum([program.P[i, j] * x[i] * x[j] for i, j in np.argwhere(program.P)])
    m.minimize(dm.sum([c[i] * x[i] for i in range(n)]) + 0.5 * curved)
    for row, side in zip(program.A, program.b, strict=True):
        m.subject_to(dm.sum([row[i] * x[i] for i in np.flatnonzero(row)]) == side)
    for row, side in zip(program.G, program.h, strict=True):
        m.subject_to(dm.sum([row[i] * x[i] for i in np.flatnonzero(row)]) <= side)

    def run(cost: Array) -> tuple[Array, Array]:
        decisions, gradients = np.full(cost.shape, np.nan), np.full(cost.shape, np.nan)
        for i, value in enumerate(cost):
            c.value = value
            result = differentiable_solve_l3(m)
            decisions[i] = [float(result.x["x"][j]) for j in range(n)]
            jacobian = result.sensitivity_matrix()
            if jacobian is not None:
                gradients[i] = 2.0 * decisions[i] @ np.asarray(jacobian)
        return decisions, gradients

    return run
