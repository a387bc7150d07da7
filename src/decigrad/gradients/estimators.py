"""The estimators of the field for discrete decisions; see `estimated` for what they have in common.

Lengths are relative, so that a default fits any unit of the cost: a step along x̄ is `lam` times ‖q‖/‖x̄‖, and
noise has the standard deviation `sigma` times the root mean square of q.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from decigrad.errors import ModelError
from decigrad.gradients.estimated import Estimated
from decigrad.program import Array


def _size(q: Array) -> Array:
    """Root mean square, never zero."""
    return jnp.maximum(jnp.sqrt((q**2).mean()), 1e-30)


def _step(lam: float, q: Array, bar: Array) -> Array:
    """The length λ of a step along x̄ in which the cost changes by the share `lam` of its size."""
    size = _size(bar)
    return jnp.where(size > 1e-30, lam * _size(q) / size, 1.0)


def _positive(name: str, **values: float) -> None:
    for what, value in values.items():
        if not value > 0:
            raise ModelError(f"{name}: {what} must be positive, got {value}")


@dataclass(frozen=True)
class BlackBox(Estimated):
    """Differentiation of a black-box solver (DBB): the gradient of a piecewise linear interpolation.

        q̄ = ( x(q + λx̄) − x(q) ) / λ,        λ = lam · ‖q‖ / ‖x̄‖

    One solve more in the backward pass.

    Source: Vlastelica et al. (2020), Differentiation of Blackbox Combinatorial Solvers, ICLR.
    """

    lam: float = 0.3

    solves = (1, 1)

    def __post_init__(self) -> None:
        _positive("BlackBox", lam=self.lam)

    def costs(self, q: Array, x: Array, cotangent: Array, z: Array) -> Array:
        """q + λx̄."""
        return (q + _step(self.lam, q, cotangent) * cotangent)[None]

    def cotangent(
        self, q: Array, x: Array, cotangent: Array, z: Array, forward: Array, answers: Array
    ) -> Array:
        """The difference quotient."""
        return (answers[0] - x) / _step(self.lam, q, cotangent)


@dataclass(frozen=True)
class Identity(Estimated):
    """The solver's Jacobian taken as −I (negative identity, NID; without projection: straight-through).

        q̄ = −Pᵀx̄

    with P the Jacobian of a projection of the cost that leaves the decision unchanged: "mean" removes the
    mean (valid where Σx is the same for all decisions), "norm" the length, "both" first the one, then the
    other. No solve in the backward pass.

    Source: Sahoo et al. (2023), Backpropagation through Combinatorial Algorithms: Identity with Projection
    Works, ICLR; Bengio, Léonard and Courville (2013), arXiv:1308.3432.
    """

    projection: Literal["none", "mean", "norm", "both"] = "norm"

    def __post_init__(self) -> None:
        if self.projection not in ("none", "mean", "norm", "both"):
            raise ModelError(
                f"Identity: projection must be none, mean, norm or both, got {self.projection!r}"
            )

    def costs(self, q: Array, x: Array, cotangent: Array, z: Array) -> Array:
        """None."""
        return jnp.zeros((0, q.size), q.dtype)

    def cotangent(
        self, q: Array, x: Array, cotangent: Array, z: Array, forward: Array, answers: Array
    ) -> Array:
        """−Pᵀx̄."""

        def project(q: Array) -> Array:
            if self.projection in ("mean", "both"):
                q = q - q.mean()
            return q / _size(q) if self.projection in ("norm", "both") else q

        return jax.vjp(project, q)[1](-cotangent)[0]


@dataclass(frozen=True)
class Perturbed(Estimated):
    """The perturbed minimizer (DPO): the exact gradient of an expected decision, estimated by sampling.

        forward   E_z[ x(q + σz) ]          backward   q̄ = E_z[ (x̄ᵀx(q + σz) − b) z ] / σ

    σ is `sigma` times the root mean square of q, and b the mean over the draws. With `kind="multiplicative"`
    the cost is q·exp(sz − s²/2) with s = `sigma`, which keeps its sign, and q̄ᵢ = E_z[(x̄ᵀx − b) zᵢ] / (s qᵢ).
    The forward value changes: it is a mean of decisions. Evaluation scores the unperturbed one.

    Source: Berthet et al. (2020), Learning with Differentiable Perturbed Optimizers, NeurIPS; Dalle et al.
    (2022), arXiv:2207.13513.
    """

    sigma: float = 0.5
    samples: int = 8
    kind: Literal["additive", "multiplicative"] = "additive"

    changes_forward = True

    def __post_init__(self) -> None:
        _positive("Perturbed", sigma=self.sigma)
        if self.samples < 2:
            raise ModelError("Perturbed needs samples >= 2: each draw is compared with their mean")
        if self.kind not in ("additive", "multiplicative"):
            raise ModelError(f"Perturbed: kind must be additive or multiplicative, got {self.kind!r}")

    @property
    def draws(self) -> int:  # type: ignore[override]
        """One z a sample."""
        return self.samples

    @property
    def solves(self) -> tuple[int, int]:  # type: ignore[override]
        """One for each draw."""
        return self.samples, 0

    def perturbed(self, q: Array, z: Array) -> Array:
        """The perturbed costs."""
        if self.kind == "additive":
            return q + self.sigma * _size(q) * z
        return q * jnp.exp(self.sigma * z - 0.5 * self.sigma**2)

    def costs(self, q: Array, x: Array, cotangent: Array, z: Array) -> Array:
        """None beyond those of the forward pass."""
        return jnp.zeros((0, q.size), q.dtype)

    def cotangent(
        self, q: Array, x: Array, cotangent: Array, z: Array, forward: Array, answers: Array
    ) -> Array:
        """The score function's estimate."""
        value = forward @ cotangent
        centred = (value - value.mean()) * (self.samples / (self.samples - 1.0))
        score = (centred[:, None] * z).mean(0)
        if self.kind == "additive":
            return score / (self.sigma * _size(q))
        return score / (self.sigma * jnp.where(q == 0, 1.0, q))


@dataclass(frozen=True)
class IMLE(Estimated):
    """Implicit maximum likelihood: a difference between perturbed decisions at two costs (I-MLE, AI-MLE).

        forward   E_z[ x(q + σz) ]       backward   q̄ = E_z[ x(q + λx̄ + σz) − x(q + σz) ] / λ

    with λ = lam · ‖q‖ / ‖x̄‖. `adaptive=True` (AI-MLE) takes, for each sample, the shortest of the steps λ,
    3λ, 9λ at which a decision changes; it has no state, so that training is a function of its data. `samples`
    solves in the forward pass, as many (adaptive: three times) in the backward pass.

    Args:
        sigma: standard deviation of the noise relative to the root mean square of q.
        lam: relative length of the step.
        samples: draws of z.
        kappa: −z is a sum of gamma variables (ten terms) that mimics a Gumbel over decisions with `kappa`
            nonzero entries; None: z is standard normal.
        adaptive: see above.

    Source: Niepert, Minervini and Franceschi (2021), Implicit MLE, NeurIPS; Minervini, Franceschi and
    Niepert (2023), Adaptive Perturbation-Based Gradient Estimation for Discrete Latent Variable Models, AAAI.
    """

    sigma: float = 0.5
    lam: float = 1.0
    samples: int = 1
    kappa: int | None = None
    adaptive: bool = False

    changes_forward = True

    def __post_init__(self) -> None:
        _positive("IMLE", sigma=self.sigma, lam=self.lam, samples=self.samples)

    @property
    def draws(self) -> int:  # type: ignore[override]
        """One z a sample."""
        return self.samples

    @property
    def solves(self) -> tuple[int, int]:  # type: ignore[override]
        """One for each draw, and one for each length of the step."""
        return self.samples, self.samples * (3 if self.adaptive else 1)

    def noise(self, key: Array, n: int, dtype: Any) -> Array:
        """z [samples, n]: sum-of-gamma or normal."""
        if self.kappa is None:
            return super().noise(key, n, dtype)
        terms = jnp.arange(1, 11, dtype=dtype)
        shape = (10, self.samples, n)
        gamma = jax.random.gamma(key, 1.0 / self.kappa, shape, dtype) * (self.kappa / terms)[:, None, None]
        return (jnp.log(10.0) - gamma.sum(0)) / self.kappa  # costs are minimized: q − noise

    def perturbed(self, q: Array, z: Array) -> Array:
        """The perturbed costs."""
        return q + self.sigma * _size(q) * z

    def _lengths(self, q: Array, bar: Array) -> Array:
        powers = jnp.array([1.0, 3.0, 9.0] if self.adaptive else [1.0], q.dtype)
        return _step(self.lam, q, bar) * powers

    def costs(self, q: Array, x: Array, cotangent: Array, z: Array) -> Array:
        """The perturbed costs, moved along x̄ by each length."""
        moved = self._lengths(q, cotangent)[:, None, None] * cotangent
        return (self.perturbed(q, z)[None] + moved).reshape(-1, q.size)

    def cotangent(
        self, q: Array, x: Array, cotangent: Array, z: Array, forward: Array, answers: Array
    ) -> Array:
        """The difference quotient of the chosen length."""
        lengths = self._lengths(q, cotangent)
        change = (answers.reshape(lengths.size, -1, q.size) - forward[None]).mean(1)
        changed = (abs(change).max(-1) > 1e-9).at[-1].set(True)
        first = jnp.argmax(changed)
        return change[first] / lengths[first]
