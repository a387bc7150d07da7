"""The compiled dual active-set solver: dense programs of up to about a thousand variables, on the CPU.

What the samples of a batch share is factored once (and remembered by its content from call to call); each
sample then takes steps in the space of its active constraints. The answer is verified in the program's own
units, and constraints that meet without a multiplier are judged as in `degeneracy`. What the core does not
settle goes to DAQP, which confirms infeasible and unbounded samples by an independent linear program.

Source: D. Goldfarb and A. Idnani, "A numerically stable dual method for solving strictly convex quadratic
programs", Mathematical Programming 27 (1983), doi:10.1007/BF02591962; J. J. Júdice and F. M. Pires, "A block
principal pivoting algorithm for large-scale strictly monotone linear complementarity problems", Computers &
Operations Research 21 (1994), doi:10.1016/0305-0548(94)90106-6.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from decigrad import native
from decigrad.batching import host_batch, may_block
from decigrad.program import QuadraticProgram, RawResult, Start, Status, raw_shapes
from decigrad.solvers.daqp import DAQP
from decigrad.solvers.degeneracy import complete
from decigrad.solvers.verification import Curvature, curvature, scatter

__all__ = ["ActiveSet"]

LINEAR_SHIFT = 1e-3
"""ε of the proximal point method for linear programs, whose costs are brought to unit size."""
SEMIDEFINITE_SHIFT = 1e-6
"""ε in units of the largest curvature, where P is singular."""


@dataclass(frozen=True)
class ActiveSet:
    """The compiled dual active-set solver.

    Attributes:
        max_iterations: active-set changes allowed for one sample.
        threads: at most so many; None: those of the processor, where a batch has work for them.

    An answer depends on the sample's own data alone: not on the batch, the order in it, earlier calls, the
    number of threads, or (but for rounding) the active set that it starts from. Only where more constraints
    meet at a vertex than it has dimensions may the start choose which of them count as active.

    Where P is only semidefinite the solution may not be unique; the one returned is the limit of the
    proximal-point method started from x = 0.

    Inside `jit` samples that the core does not settle are handed on by one callback, which is not taken where
    there are none. With one visible core, where a callback can block for good, they keep what the core says
    instead: a degenerate sample its independent active set, another one NUMERICAL_ERROR.

    Statuses as those of `DAQP`.
    """

    max_iterations: int = 10_000
    threads: int | None = None
    name: str = field(default="active-set", init=False, repr=False)
    host: bool = field(default=True, init=False, repr=False)
    warm: bool = field(default=True, init=False, repr=False)

    def refuses(self, program: QuadraticProgram) -> str | None:
        """Why this class of programs is not for this solver, or None."""
        if program.integer:
            return "it solves continuous programs; this one has integer variables"
        return native.missing()

    def __call__(self, program: QuadraticProgram, start: RawResult | Start | None = None) -> RawResult:
        """Solve a batched program. Leaves may be NumPy or JAX arrays; the result holds NumPy arrays.

        `start` holds in `active` and `fixed` the sets to try first, by sample.
        """
        program = program.numpy()
        shift = LINEAR_SHIFT if program.linear else 0.0
        raw, verdict = self._run(program, shift, start)
        if (verdict == native.OPTIMAL).all():
            return raw
        if (verdict == native.UNSUITABLE).all() and not program.linear:
            kinds = curvature(program.P)
            if len(kinds) == 1 and kinds[0] == Curvature.SEMIDEFINITE:
                diagonal = np.diagonal(program.P.dense(), axis1=-2, axis2=-1)
                raw, verdict = self._run(
                    program, SEMIDEFINITE_SHIFT * float(diagonal.max(initial=0.0)), start
                )
        return self._settled(program, raw, verdict)

    def _run(
        self, program: QuadraticProgram, shift: float, start: RawResult | Start | None
    ) -> tuple[RawResult, np.ndarray]:
        B = program.batch_size
        active = np.zeros((B, program.num_inequalities), bool)
        fixed = np.zeros((B, program.n), np.int8)
        if start is not None:
            active[:], fixed[:] = start.active, start.fixed
        x, y, z, w, verdict, iterations = native.solve(
            program, active, fixed, warm=start is not None, limit=self.max_iterations, shift=shift,
            threads=self.threads,
        )  # fmt: skip
        return RawResult(x, y, z, w, active, fixed, np.zeros(B, np.int32), iterations), verdict

    def _settled(self, program: QuadraticProgram, raw: RawResult, verdict: np.ndarray) -> RawResult:
        """The result with the samples settled that the core has left."""
        unsettled = np.flatnonzero(verdict == native.UNSETTLED)
        if len(unsettled):
            part = jax.tree_util.tree_map(lambda a: a[unsettled], raw)
            scatter(complete(program.take(unsettled), part), unsettled, raw)
        unsolved = np.flatnonzero(verdict > native.UNSETTLED)
        if len(unsolved):
            scatter(DAQP(self.max_iterations)(program.take(unsolved)), unsolved, raw)
        return raw

    def traced(self, program: QuadraticProgram, start: Start | None = None) -> RawResult:
        """The result of a batched program inside a trace."""
        shapes = raw_shapes(jax.tree_util.tree_map(lambda a: a[0], program))

        def otherwise(program: QuadraticProgram, start: Start | None) -> RawResult:
            found: RawResult = host_batch(self, shapes, program, start)
            return found

        def compiled(program: QuadraticProgram, start: Start | None) -> RawResult:
            shift = LINEAR_SHIFT if program.linear else 0.0
            *parts, active, fixed, verdict, iterations = native.traced_solve(
                program, start, self.max_iterations, shift, self.threads
            )
            good = verdict <= native.UNSETTLED
            status = jnp.where(good, int(Status.OPTIMAL), int(Status.NUMERICAL_ERROR)).astype(jnp.int32)
            x, y, z, w = (jnp.where(good[:, None], part, 0.0) for part in parts)
            x = jnp.where(good[:, None], x, jnp.nan)
            active, fixed = active & good[:, None], jnp.where(good[:, None], fixed, 0).astype(jnp.int8)
            raw = RawResult(x, y, z, w, active, fixed, status, iterations)
            if may_block(program):
                return raw
            left = (verdict != native.OPTIMAL).any()
            chosen: RawResult = jax.lax.cond(left, lambda: otherwise(program, start), lambda: raw)
            return chosen

        if program.q.dtype != jnp.float64 or native.missing():
            return otherwise(program, start)
        found: RawResult = jax.lax.platform_dependent(program, start, cpu=compiled, default=otherwise)
        return found

    def traces(self, program: QuadraticProgram) -> bool:
        """Whether programs with this one's curvature are solved inside a trace by the core alone, but for
        samples that are infeasible or degenerate."""
        definite = len(kinds := curvature(program.P)) == 1 and kinds[0] == Curvature.DEFINITE
        return definite and native.missing() is None and jax.default_backend() == "cpu"
