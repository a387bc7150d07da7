"""Solving less often: steps whose decisions are the best ones known so far, found by evaluation.

The pool of a training (a lane) starts with the optimal decisions of its own samples and grows with every
decision that is solved for in its steps, so in cross-validation nothing that is held out gets in. Its answer
for an instance is the decision of least objective among those that are feasible for it, so it is an upper
bound of the instance's optimum, over a set that training itself explores.

Source: Mulamba et al. (2021), Contrastive Losses and Solution Caching for Predict-and-Optimize, IJCAI,
doi:10.24963/ijcai.2021/390.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from decigrad.checkpoint import drawn, redrawn
from decigrad.errors import ModelError
from decigrad.layer import DecisionLayer
from decigrad.losses import Loss
from decigrad.program import QuadraticProgram
from decigrad.solving import run

LARGEST = 20_000
"""Decisions kept; later ones are not added."""
FEASIBLE = 1e-6
"""Largest violation of a constraint, relative to 1 + its right-hand side, in a decision that is reused."""


class Reuse:
    """Which steps take their answers from the pools: each with probability 1 − ratio; and what that saves."""

    def __init__(self, layer: DecisionLayer, loss: Loss, ratio: float, seed: int) -> None:
        if loss.through or layer.gradient.changes_forward:
            raise ModelError(
                f"solve_ratio < 1 reuses known decisions, and those have no derivative: "
                f"{type(loss).__name__} with the gradient {layer.gradient} needs one. Use a surrogate such "
                f"as SPOPlus(), or solve_ratio=1"
            )
        self.layer, self.ratio = layer, ratio
        self.saved = 0
        """Solver calls that were not made."""
        self._rng = np.random.default_rng(seed)

    def next(self) -> bool:
        """Whether the next step does."""
        return bool(self._rng.random() >= self.ratio)

    def answers(self, pools: list[DecisionPool], queries: Any, mask: np.ndarray) -> tuple[Any, np.ndarray]:
        """Answers and status [L, B] from the lanes' pools; where no decision is feasible, solved."""
        answers, status = {}, np.zeros(mask.shape, np.int32)
        for label, query in queries.items():
            program, lead = self.layer.programs(query)
            size = int(np.prod(lead, dtype=int))
            lanes = np.arange(size).reshape(-1, *mask.shape).swapaxes(0, 1).reshape(len(pools), -1)
            x = np.zeros((size, program.n))
            for own, pool in zip(lanes, pools, strict=True):
                x[own] = pool.best(program.take(own), own.size)
            found, known = np.zeros(size, np.int32), np.isfinite(x).all(1)
            missing = np.flatnonzero(~known)
            if missing.size:
                raw, _ = run(self.layer.form, self.layer.solver, program.take(missing))
                x[missing], found[missing] = raw.x, raw.status
                for own, pool in zip(lanes, pools, strict=True):
                    pool.add(x[np.intersect1d(own, missing)])
                x[missing] = np.nan_to_num(x[missing])
            self.saved += int((known.reshape(-1, *mask.shape) & (mask > 0)).sum())
            answers[label] = self.layer.form.split(x.reshape(lead + x.shape[1:]))
            status = np.maximum(status, found.reshape(-1, *mask.shape).max(0))
        return answers, status

    def state(self) -> Any:
        """What a checkpoint keeps."""
        return {"saved": self.saved, "rng": drawn(self._rng)}

    def restore(self, state: Any) -> None:
        """Go on from there."""
        self.saved = state["saved"]
        redrawn(self._rng, state["rng"])


class DecisionPool:
    """Distinct decisions."""

    def __init__(self, x: np.ndarray) -> None:
        self._size = x.shape[1]
        self._points: list[np.ndarray] = []
        self._seen: set[bytes] = set()
        self.add(x)

    def add(self, x: np.ndarray) -> None:
        """Remember decisions x [B, n], with their auxiliary columns; those with NaN are left out."""
        for row in x[np.isfinite(x).all(1)]:
            key = (row.round(9) + 0.0).tobytes()
            if key not in self._seen and len(self._seen) < LARGEST:
                self._seen.add(key)
                self._points.append(row)

    def __len__(self) -> int:
        return len(self._points)

    @property
    def points(self) -> np.ndarray:
        """The decisions [K, n], in the order in which they came: a pool of them is this one."""
        return np.array(self._points).reshape(len(self), self._size)

    def best(self, program: QuadraticProgram, size: int) -> np.ndarray:
        """For each of the `size` instances the best known decision [size, n]; NaN where none is feasible."""
        if not self._points:
            return np.full((size, program.n), np.nan)
        points = self.points
        value = program.q @ points.T
        if not program.linear:
            value = value + _quadratic(program, points)
        differs = max(len(a) for a in jax.tree_util.tree_leaves(_limits(program))) > 1
        if differs:
            feasible = [_feasible(program.sample(i), points) for i in range(program.batch_size)]
            value = np.where(np.stack(feasible), value, np.inf)
        value = np.broadcast_to(value, (size, len(points)))
        chosen = points[value.argmin(1)]
        return np.where(np.isfinite(value.min(1))[:, None], chosen, np.nan)


def _limits(program: QuadraticProgram) -> tuple[object, ...]:
    return program.A, program.b, program.G, program.h, program.lb, program.ub


def _quadratic(program: QuadraticProgram, points: np.ndarray) -> np.ndarray:
    """½xᵀPx of every decision, [B or 1, K]."""
    count = max(len(a) for a in jax.tree_util.tree_leaves(program.P))
    return np.stack([0.5 * (points * program.sample(i).P.matvec(points)).sum(1) for i in range(count)])


def _feasible(program: QuadraticProgram, points: np.ndarray) -> np.ndarray:
    """Which decisions [K] keep the constraints of one instance."""
    gaps = [program.lb - points, points - program.ub]
    gaps.append(abs(program.A.matvec(points) - program.b) / (1.0 + abs(program.b)))
    bound = np.where(np.isfinite(program.h), program.h, 0.0)
    gaps.append((program.G.matvec(points) - program.h) / (1.0 + abs(bound)))
    worst = np.concatenate(gaps, axis=1).max(1, initial=-np.inf)
    return worst <= FEASIBLE * (1.0 + abs(points).max(1, initial=0.0))
