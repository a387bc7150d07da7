"""Integer programs by two solvers: one finds the integers, one decides the rest while they are held.

The second one's multipliers and active set are the answer's, so "fix and differentiate" is what derivatives
do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from decigrad.program import QuadraticProgram, RawResult, Status
from decigrad.solvers.verification import blank, failed, scatter, settle


def with_integers_held(
    program: QuadraticProgram,
    found: RawResult,
    continuous: Callable[[QuadraticProgram], RawResult],
    tolerance: float,
) -> RawResult:
    """The answers for integer variables as `found` has them, rounded, and all others decided anew.

    Arguments:
        program: batched, with integer variables.
        found: of branch and bound, unverified: OPTIMAL, or TIME_LIMIT with an incumbent in `x`, which stays.
        continuous: solves programs without integer variables, verified.
        tolerance: largest relative KKT residual accepted.
    """
    integer = list(program.integer)
    found.x[:, integer] = np.round(found.x[:, integer]) + 0.0  # no −0
    solved = found.status == int(Status.OPTIMAL)
    incumbent = (found.status == int(Status.TIME_LIMIT)) & np.isfinite(found.x).all(axis=1)
    raw = found.replace(x=np.where((solved | incumbent)[:, None], found.x, np.nan))
    index = np.flatnonzero(solved)
    if not len(index):
        return failed(raw, incumbent)
    part = program if len(index) == len(solved) else program.take(index)
    held = _hold(part, integer, raw.x[index])
    if len(integer) == program.n:
        x = raw.x[index]
        answer = blank(held).replace(x=x, w=-(held.P.matvec(x) + held.q), status=raw.status[index])
        answer = settle(held, answer, tolerance)
    else:
        answer = continuous(held)
    certain = answer.status == int(Status.OPTIMAL)
    answer.fixed[:, integer] = certain[:, None]
    # The integer point exists, so a held program that cannot be solved is a matter of rounding.
    status = np.where(certain, answer.status, int(Status.NUMERICAL_ERROR)).astype(np.int32)
    raw = failed(raw, incumbent)
    scatter(answer.replace(status=status, iterations=raw.iterations[index]), index, raw)
    return raw


def _hold(program: QuadraticProgram, integer: list[int], x: np.ndarray) -> QuadraticProgram:
    """The program with its integer variables held at x, and no longer integer."""
    lb, ub = (np.broadcast_to(bound, x.shape).copy() for bound in (program.lb, program.ub))
    lb[:, integer] = ub[:, integer] = x[:, integer]
    return replace(program, lb=lb, ub=ub, integer=())
