"""What `DecisionLayer(gradient=...)` can be: the exact derivative, or that of a relaxed or smoothed model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.errors import ModelError
from decigrad.gradients.entropic import LEAST, Entropic, plus_diagonal
from decigrad.gradients.implicit import Coupling, Gradient
from decigrad.program import (
    Array,
    Dense,
    Diagonal,
    LowRank,
    Operator,
    QuadraticProgram,
    RawResult,
    Solver,
    Status,
    namespace,
)


@dataclass(frozen=True)
class KKT(Gradient):
    """The exact derivative of the decision, by the implicit function theorem on the KKT conditions.

    dx*/dθ at the active set of the solution. For a linear program it is zero almost everywhere in the
    cost. See `decigrad.gradients.implicit` for the element returned at kinks. The forward value is the
    model's own solution.
    """


@dataclass(frozen=True)
class Relaxed(Gradient):
    """The exact derivative of the continuous relaxation: integrality is dropped, in the decision too.

    For a linear model the derivative in the cost is zero almost everywhere; with the loss `SPOPlus()` this is
    SPO+ with the relaxed oracle: cheaper than the integer one, and still an upper bound of regret, because
    labels and scores are those of the model itself (`DecisionLayer.exact`). A layer whose solver is an
    oracle gets a general solver for the model's constraints, which therefore must be stated.

    Source: Mandi, Demirović, Stuckey and Guns (2020), Smart Predict-and-Optimize for Hard Combinatorial
    Optimization Problems, doi:10.1609/aaai.v34i02.5521.
    """

    changes_forward = True

    def program(self, program: QuadraticProgram) -> QuadraticProgram:
        """The program without integrality."""
        return dataclasses.replace(program, integer=())

    def solver(self, asked: str | Solver, program: QuadraticProgram) -> str | Solver:
        """The layer's where it takes the relaxation, else "auto"."""
        return for_relaxation(self, asked, program)


def for_relaxation(gradient: Gradient, asked: str | Solver, program: QuadraticProgram) -> str | Solver:
    """The solver that was asked for where it takes what the gradient makes of the program, else "auto"."""
    from decigrad.oracles.protocol import LinearOracle
    from decigrad.solvers.automatic import NAMES, by_name

    if isinstance(asked, LinearOracle):
        asked.refuse_unstated(program, type(gradient).__name__)
        return "auto"

    known = isinstance(asked, str) and asked in NAMES and asked != "auto"
    solver = by_name(asked)[0] if known else asked
    if isinstance(solver, str) or not solver.refuses(gradient.program(program)) or solver.refuses(program):
        return asked
    return "auto"


@dataclass(frozen=True)
class Smoothed(Gradient):
    """The exact derivative of a *smoothed* program: informative where the exact one is zero.

    To the objective f of the continuous relaxation is added, with s = 1, or s the root mean square of the
    cost vector q under `relative=True`:

        "quadratic"   ½ mu·s ‖x‖²                     QPTL (Wilder, Dilkina and Tambe 2019)
        "barrier"     −mu·s Σ log(slack)              IntOpt (Mandi and Guns 2020); interior point method
        "entropy"     mu·s Σ xᵢ log xᵢ                for lb ≥ 0; on the simplex: softmax(−q/(mu·s))

    The forward value changes too: the layer returns the smoothed decision. Evaluation always scores the
    model's own one (`DecisionLayer.exact`), integer where the model is. As in `Relaxed`, a layer whose solver
    is an oracle gets a general solver for the constraints that the model states.

    Args:
        mu: strength; in the unit of the cost (per squared unit of x for "quadratic"), relative: of the cost.
        kind: see above.
        relative: s as above, so that one `mu` fits any unit of cost. Its own derivative is left out.

    Source: Wilder et al. (2019), Melding the Data-Decisions Pipeline, doi:10.1609/aaai.v33i01.33011658;
    Mandi and Guns (2020), Interior Point Solving for LP-based prediction+optimisation, NeurIPS.
    """

    mu: float
    kind: Literal["quadratic", "barrier", "entropy"] = "quadratic"
    relative: bool = False

    changes_forward = True

    def __post_init__(self) -> None:
        if not self.mu > 0:
            raise ModelError(f"Smoothed: mu must be positive, got {self.mu}")
        if self.kind not in ("quadratic", "barrier", "entropy"):
            raise ModelError(f"Smoothed: kind must be quadratic, barrier or entropy, got {self.kind!r}")

    def program(self, program: QuadraticProgram) -> QuadraticProgram:
        """The relaxation with its objective divided by s, and with the quadratic term."""
        program = dataclasses.replace(program, integer=())
        if self.relative:
            program = _divided(program, cost_size(program.q))
        if self.kind != "quadratic":
            return program
        P = plus_diagonal(program.P, self.mu * namespace(program.q).ones(program.n))
        return dataclasses.replace(program, P=P, linear=False)

    def solver(self, asked: str | Solver, program: QuadraticProgram) -> str | Solver:
        """One for the barrier or the entropy, else the layer's if it takes the smoothed program."""
        asked = for_relaxation(self, asked, program)
        if self.kind == "quadratic":
            return asked
        if self.kind == "entropy":
            if (below := np.flatnonzero((program.lb < 0).any(0))).size:
                raise ModelError(
                    f"Smoothed: entropy needs variables with lb >= 0; {below.size} of {program.n} may "
                    f"be negative, first that at position {below[0]}: bound them, or use kind='quadratic'"
                )
            return Entropic(self.mu)
        from decigrad.solvers.interior_point import InteriorPoint

        return InteriorPoint(barrier=self.mu)

    def stated(self, program: QuadraticProgram, raw: RawResult) -> RawResult:
        """Multipliers times s."""
        if not self.relative:
            return raw
        size = cost_size(program.q)[..., None]
        return raw.replace(y=raw.y * size, z=raw.z * size, w=raw.w * size)

    def regularizer(self, program: QuadraticProgram, x: Array) -> Array:
        """What is added to the objective at x, for one sample; s counts as a constant."""
        if self.kind == "barrier":
            raise ModelError("the barrier is infinite at the bounds, where optimal decisions lie")
        size = cost_size(program.q) if self.relative else 1.0
        if self.kind == "entropy":
            return self.mu * size * (x * jnp.log(jnp.where(x > 0, x, 1.0))).sum(-1)
        return 0.5 * self.mu * size * (x**2).sum(-1)

    def curved(self, program: QuadraticProgram, raw: RawResult) -> QuadraticProgram:
        """With the curvature mu/x of the entropy."""
        if self.kind != "entropy":
            return program
        xp = namespace(program.q, raw.x)
        ok = (raw.status == Status.OPTIMAL)[..., None]
        x = xp.where(ok, raw.x, 1.0)
        return dataclasses.replace(program, P=plus_diagonal(program.P, self.mu / xp.maximum(x, LEAST)))

    def coupling(self, program: QuadraticProgram, raw: RawResult) -> Coupling:
        """Hard constraints, or the stiffness of the barrier."""
        if self.kind != "barrier":
            return super().coupling(program, raw)
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


@dataclass(frozen=True)
class RelaxationGradient(Gradient):
    """The model's own decision, with the derivative of the smoothed relaxation at the same parameters.

        forward   x*(θ), exact and integer        backward   dx_mu(θ)/dθ, of `Smoothed(mu, kind, relative)`

    One smoothed solve more a step. Unlike the estimators of the cost it sees predicted constraints too.

    Args:
        mu, kind, relative: as in `Smoothed`, but relative by default.

    Source: the smoothed relaxation of Wilder et al. (2019), doi:10.1609/aaai.v33i01.33011658, kept for the
    backward pass alone, in the manner of a straight-through estimator.
    """

    exact = False
    solves = (1, 1)

    mu: float = 1.0
    kind: Literal["quadratic", "barrier", "entropy"] = "quadratic"
    relative: bool = True

    def __post_init__(self) -> None:
        self.smoothed  # noqa: B018 - refuses what makes no sense

    @property
    def smoothed(self) -> Smoothed:
        """The gradient of the layer that is differentiated."""
        return Smoothed(self.mu, self.kind, self.relative)


def cost_size(q: Array) -> Array:
    """Root mean square of a cost vector [..., n], a constant for derivatives; 1 where it vanishes."""
    xp = namespace(q)
    size = xp.sqrt((q**2).mean(-1))
    size = xp.where(size > 0, size, 1.0)
    return jax.lax.stop_gradient(size) if xp is jnp else size


def _divided(program: QuadraticProgram, size: Array) -> QuadraticProgram:
    """The program with its objective divided by size [...]."""
    by_row = size[..., None]
    P: Operator = program.P
    if isinstance(P, Dense):
        P = Dense(P.matrix / by_row[..., None])
    elif program.linear:
        pass  # zero, and shared by the batch
    elif isinstance(P, Diagonal):
        P = Diagonal(P.diagonal / by_row)
    else:
        P = LowRank(P.diagonal / by_row, P.factor, P.weight / by_row)
    return dataclasses.replace(program, P=P, q=program.q / by_row, r=program.r / size)


def _stiffness(slack: Array, mu: float, ok: Array, xp: Any) -> Array:
    """Second derivative mu/slack² of the barrier of one bound; zero for an infinite one."""
    finite = xp.isfinite(slack) & ok
    return xp.where(finite, mu / xp.where(finite, slack, 1.0) ** 2, 0.0)
