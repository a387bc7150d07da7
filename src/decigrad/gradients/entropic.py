"""Programs with an entropic term, by a sequence of quadratic programs.

    minimize  ½xᵀPx + qᵀx + μ Σ xᵢ log xᵢ   over the constraints of a program with lb ≥ 0

At x the entropy is replaced by its second-order expansion: a quadratic program with curvature P + μ diag(1/x)
and cost q + μ log x. Its solution is the next point, cut back where it would shrink an entry too much. This
is Newton's method with the exact active set of the constraints, so that the last quadratic program has the
multipliers and active set of the whole problem.

Source: J. Nocedal and S. J. Wright (2006), Numerical Optimization, chapter 18, doi:10.1007/978-0-387-40065-5.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import jax
import numpy as np

from decigrad.program import Array, Dense, Operator, QuadraticProgram, RawResult, Status, namespace
from decigrad.solvers.daqp import DAQP
from decigrad.solvers.verification import blank, scatter

SHRINK = 0.05  # a step leaves at least this share of an entry
LEAST = 1e-20  # of an entry, so that it has a logarithm
CONVERGED = 1e-10  # a step of this size, relative to the largest entry, is the last


@dataclass(frozen=True)
class Entropic:
    """A solver for linear and quadratic programs plus `mu` Σ x log x, on the host, with DAQP inside.

    Entries that the constraints force to zero stop there. A sample with a negative lower bound gets
    `Status.INVALID_DATA`.
    """

    mu: float
    max_iterations: int = 100
    name: str = field(default="entropic", init=False, repr=False)
    host: bool = field(default=True, init=False, repr=False)

    def refuses(self, program: QuadraticProgram) -> str | None:
        """Integer variables are refused."""
        return "the entropic term needs continuous variables" if program.integer else None

    def __call__(self, program: QuadraticProgram) -> RawResult:
        """Solve a batched program."""
        program = program.numpy()
        result = blank(program)
        batch, n = result.x.shape
        wrong = np.broadcast_to((program.lb < 0).any(-1), (batch,))
        result.status[:] = np.where(wrong, int(Status.INVALID_DATA), int(Status.ITERATION_LIMIT))
        x = np.clip(np.ones((batch, n)), program.lb, np.maximum(0.5 * (program.lb + program.ub), LEAST))
        running = np.flatnonzero(~wrong)
        for count in range(1, self.max_iterations + 1):
            if not running.size:
                break
            at, part = x[running], program.take(running)
            with np.errstate(over="ignore", invalid="ignore"):  # multipliers of infeasible samples
                raw = DAQP()(_expanded(part, at, self.mu))
            solved = raw.status == Status.OPTIMAL
            step = np.where(solved[:, None] & (part.lb < part.ub), raw.x - at, 0.0)
            small = np.abs(step).max(-1) <= CONVERGED * np.abs(at).max(-1)
            cut = step < (SHRINK - 1.0) * at
            longest = np.where(cut, (1.0 - SHRINK) * at / np.where(cut, -step, 1.0), 1.0)
            x[running] = np.maximum(at + longest.min(-1, keepdims=True) * step, LEAST)
            ended = small | ~solved
            raw.iterations[:] = count
            scatter(jax.tree_util.tree_map(lambda a, e=ended: a[e], raw), running[ended], result)
            running = running[~ended]
        return result


def _expanded(program: QuadraticProgram, x: np.ndarray, mu: float) -> QuadraticProgram:
    x = np.where(program.lb < program.ub, x, 1.0)  # a held entry has no curvature to expand
    P = plus_diagonal(program.P, mu / x)
    return dataclasses.replace(program, P=P, q=program.q + mu * np.log(x), linear=False)


def plus_diagonal(P: Operator, extra: Array) -> Operator:
    """P + diag(extra [..., n])."""
    if isinstance(P, Dense):
        return Dense(P.matrix + extra[..., None] * namespace(P.matrix, extra).eye(extra.shape[-1]))
    return dataclasses.replace(P, diagonal=P.diagonal + extra)
