"""Portfolios under a limit on risk: a linear objective over a set that a quadratic constraint rounds off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from decigrad.errors import ModelError, SolveError
from decigrad.oracles.fixed import FixedArray, finite
from decigrad.oracles.protocol import LinearOracle
from decigrad.program import Array, Dense, QuadraticProgram, Status
from decigrad.solvers.daqp import DAQP

EXACT = 1e-13
"""The risk of an answer differs from the limit by this share of it at most, where the limit binds."""

ROUNDS = 200
"""Quadratic programs for one sample, at most; a handful is usual."""


@dataclass(frozen=True)
class Portfolio(LinearOracle):
    """Long-only portfolios of limited variance.

    minimize cᵀx over x ≥ 0 with Σx ≤ 1 and xᵀΣx ≤ risk; costs c [B, n], the negated returns, of any sign.

    Args:
        covariance: Σ [n, n], symmetric and positive definite.
        risk: the largest variance, positive.

    Unique unless costs tie and the risk does not bind; then the tied portfolio of least variance. It moves
    with the cost, so there is no zero derivative to use: losses that differentiate the decision are refused.

    The minimizer x(t) of ½xᵀΣx + t cᵀx over the rest of the set has a variance that grows with t, and is
    linear in t while the same assets are held. So quadratic programs are solved at a few t, and the t at
    which the variance is `risk` follows from the assets held there; on the host. Source: Markowitz (1956),
    "The optimization of a quadratic function subject to linear constraints", Naval Research Logistics 3,
    doi:10.1002/nav.3800030110.
    """

    covariance: Any
    risk: float

    name = "portfolio"
    host: ClassVar[bool] = True
    vertex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        covariance = finite("covariance", self.covariance, 2)
        if covariance.shape[0] != covariance.shape[1] or (abs(covariance - covariance.T) > 1e-12).any():
            raise ModelError(f"covariance must be a symmetric matrix, got shape {covariance.shape}")
        least = np.linalg.eigvalsh(covariance)[0]
        if not least > 0:
            raise ModelError(f"covariance must be positive definite; its least eigenvalue is {least:g}")
        risk = float(finite("risk", [self.risk], 1)[0])
        if not risk > 0:
            raise ModelError(f"risk must be positive, got {risk:g}")
        object.__setattr__(self, "covariance", FixedArray(covariance))
        object.__setattr__(self, "risk", risk)

    def size(self) -> int:
        """Number of assets."""
        return len(self.covariance)

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Portfolios [B, n]."""
        cost = np.asarray(cost, np.float64)
        scale = abs(cost).max(axis=1, keepdims=True)
        cost = np.divide(cost, scale, out=np.zeros(cost.shape), where=scale > 0)
        x = np.zeros(cost.shape)
        index = np.flatnonzero(cost.min(axis=1) < 0)  # elsewhere nothing is worth holding
        # where Σ alone decides, the variance of x(t) is t² cᵀΣ⁻¹c
        alone = np.linalg.solve(self.covariance.array, cost[:, :, None])[:, :, 0]
        reach = (cost * alone).sum(axis=1)
        t = np.sqrt(self.risk / np.where(reach > 0, reach, 1.0))
        low, high = np.zeros(len(cost)), np.full(len(cost), np.inf)
        for _ in range(ROUNDS):
            if not len(index):
                return x
            c, at = cost[index], t[index]
            found, held, full = self._efficient(c, at)
            risk = self._risk(found)
            low[index] = np.where(risk <= self.risk, at, low[index])
            high[index] = np.where(risk <= self.risk, high[index], at)
            best = (c * found).sum(axis=1) <= c.min(axis=1) * (1.0 - 1e-14)  # nothing returns more
            done = (abs(risk - self.risk) <= EXACT * self.risk) | (best & (risk <= self.risk))
            x[index[done]] = found[done]
            aim = self._aim(c, held, full)
            left, right = low[index], high[index]
            between = np.where(np.isfinite(right), 0.5 * (left + np.minimum(right, 1e300)), 4.0 * at)
            inside = (aim > left) & (aim < right) & np.isfinite(aim)
            t[index] = np.where(inside, aim, between)
            index = index[~done]
        raise SolveError("the portfolio oracle did not converge: covariance or costs are badly scaled")

    def _risk(self, x: Array) -> Array:
        # one product for each sample: in a product of matrices rounding depends on their number
        return ((x[:, None] @ self.covariance.array)[:, 0] * x).sum(axis=1)

    def _efficient(self, cost: Array, t: Array) -> tuple[Array, Array, Array]:
        """x(t) [B, n]; which assets are held [B, n], and whether all is invested [B]."""
        n = cost.shape[1]
        raw = DAQP()(
            QuadraticProgram(
                P=Dense(self.covariance.array[None]), q=t[:, None] * cost, r=np.zeros(1),
                A=Dense(np.zeros((1, 0, n))), b=np.zeros((1, 0)),
                G=Dense(np.ones((1, 1, n))), h=np.ones((1, 1)),
                lb=np.zeros((1, n)), ub=np.full((1, n), np.inf),
            )
        )  # fmt: skip
        if (raw.status != int(Status.OPTIMAL)).any():
            status = Status(int(raw.status.max()))
            raise SolveError(f"the portfolio oracle's quadratic program ended with {status.name}")
        return np.maximum(raw.x, 0.0), raw.fixed == 0, raw.active[:, 0]

    def _aim(self, cost: Array, held: Array, full: Array) -> Array:
        """The t [B] at which the variance is `risk` if the same assets are held; NaN if none is."""
        batch, n = cost.shape
        system = np.zeros((batch, n + 1, n + 1))
        system[:, :n, :n] = self.covariance.array * (held[:, :, None] & held[:, None, :])
        system[:, np.arange(n), np.arange(n)] += ~held
        system[:, :n, n] = system[:, n, :n] = held & full[:, None]
        system[:, n, n] = ~(held.any(axis=1) & full)
        sides = np.zeros((batch, n + 1, 2))  # x(t) = base + t · slope
        sides[:, n, 0] = full
        sides[:, :n, 1] = np.where(held, -cost, 0.0)
        base, slope = np.moveaxis(np.linalg.solve(system, sides)[:, :n], 2, 0)
        with np.errstate(divide="ignore", invalid="ignore"):  # base and slope are uncorrelated
            return np.sqrt((self.risk - self._risk(base)) / self._risk(slope))
