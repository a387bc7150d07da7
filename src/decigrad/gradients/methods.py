"""What `DecisionLayer(gradient=...)` can be: the exact derivative, or that of a smoothed program."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from decigrad.errors import ModelError
from decigrad.gradients.implicit import Coupling
from decigrad.program import Dense, Diagonal, LowRank, QuadraticProgram, RawResult, Solver, Status, namespace


@dataclass(frozen=True)
class KKT:
    """The exact derivative of the decision, by the implicit function theorem on the KKT conditions.

    dx*/dθ at the active set of the solution. For a linear program it is zero almost everywhere in the
    cost. See `decigrad.gradients.implicit` for the element returned at kinks. The forward value is the
    model's own solution.
    """

    changes_forward = False

    def program(self, program: QuadraticProgram) -> QuadraticProgram:
        return program

    def solver(self, solver: Solver) -> Solver:
        return solver

    def coupling(self, program: QuadraticProgram, raw: RawResult) -> Coupling:
        xp = namespace(program.q, raw.x)
        return Coupling(
            rows=xp.where(raw.active, 0.0, xp.inf),
            bounds=xp.where(raw.fixed != 0, 0.0, xp.inf),
            upper=xp.where(raw.fixed > 0, 1.0, 0.0),
        )


@dataclass(frozen=True)
class Smoothed:
    """The exact derivative of a *smoothed* program: informative where the exact one is zero.

    `kind="quadratic"` adds ½·mu·‖x‖² to the objective (Wilder, Dilkina and Tambe, 2019,
    doi:10.1609/aaai.v33i01.33011658); `kind="barrier"` replaces the constraints by the logarithmic barrier
    −mu·Σ log(slack) (Mandi and Guns, 2020, Interior Point Solving for LP-based prediction+optimisation),
    solved by the interior point method.

    The forward value changes too: the layer returns the smoothed decision. Evaluation always scores
    the unsmoothed one (`DecisionLayer.exact`). `mu` is in the unit of the cost (per squared unit of x for
    "quadratic").
    """

    mu: float
    kind: Literal["quadratic", "barrier"] = "quadratic"

    changes_forward = True

    def __post_init__(self) -> None:
        if not self.mu > 0:
            raise ModelError(f"Smoothed: mu must be positive, got {self.mu}")
        if self.kind not in ("quadratic", "barrier"):
            raise ModelError(f"Smoothed: kind must be 'quadratic' or 'barrier', got {self.kind!r}")

    def program(self, program: QuadraticProgram) -> QuadraticProgram:
        if self.kind == "barrier":
            return program
        P = program.P
        if isinstance(P, Dense):
            n = program.n
            smoothed: Dense | Diagonal | LowRank = Dense(P.matrix + self.mu * namespace(P.matrix).eye(n))
        else:
            smoothed = dataclasses.replace(P, diagonal=P.diagonal + self.mu)
        return dataclasses.replace(program, P=smoothed, linear=False)

    def solver(self, solver: Solver) -> Solver:
        if self.kind == "quadratic":
            return solver
        from decigrad.solvers.interior_point import InteriorPoint

        return InteriorPoint(barrier=self.mu)

    def coupling(self, program: QuadraticProgram, raw: RawResult) -> Coupling:
        if self.kind == "quadratic":
            return KKT().coupling(program, raw)
        xp = namespace(program.q, raw.x)
        ok = (raw.status == Status.OPTIMAL)[..., None]
        x = xp.where(ok, raw.x, 0.0)
        slack = program.h - program.G.matvec(x)
        stiff_upper = _stiffness(program.ub - x, self.mu, ok, xp)
        stiff_lower = _stiffness(x - program.lb, self.mu, ok, xp)
        stiff = stiff_upper + stiff_lower
        return Coupling(
            rows=xp.where(ok, slack**2 / self.mu, xp.inf),
            bounds=xp.where(stiff > 0, 1.0 / xp.where(stiff > 0, stiff, 1.0), xp.inf),
            upper=xp.where(stiff > 0, stiff_upper / xp.where(stiff > 0, stiff, 1.0), 0.0),
        )


def _stiffness(slack, mu, ok, xp):  # type: ignore[no-untyped-def]
    """Second derivative mu/slack² of the barrier of one bound; zero for an infinite one."""
    finite = xp.isfinite(slack) & ok
    return xp.where(finite, mu / xp.where(finite, slack, 1.0) ** 2, 0.0)
