"""Lanes: the state of several trainings in one batch, and how each of them is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from decigrad.checkpoint import leaves, refilled
from decigrad.reuse import DecisionPool
from decigrad.warm import ActiveSets


@dataclass
class Lanes:
    """State of several trainings: stacked weights, optimizer states, anchors, samples and pull.

    `judged` are the weights that are judged and returned: the same, or their running mean over epochs.
    """

    weights: Any
    judged: Any
    optimizer: Any
    anchor: Any
    index: np.ndarray  # [L, n] positions in the data, padded
    mask: np.ndarray  # [L, n] 1 for real, 0 for padding
    pull: np.ndarray  # [L] proximal weight × unit
    seen: Any = None  # [K, L, 1] which decisions of the data's pool are optimal for a sample of the lane
    pools: list[DecisionPool] = field(default_factory=list)  # by lane, decisions to be reused
    sets: ActiveSets | None = None  # where the solves of a step start
    epochs: int = 0

    def state(self) -> Any:
        """What a checkpoint keeps: all that epochs change, and where the lanes are pulled to."""
        trees = {name: leaves(getattr(self, name)) for name in _TREES}
        pools = [pool.points for pool in self.pools]
        sets = None if self.sets is None else self.sets.state()
        return {**trees, "pull": self.pull, "pools": pools, "epochs": self.epochs, "sets": sets}

    def restore(self, state: Any) -> None:
        """Go on from there."""
        for name in _TREES:
            setattr(self, name, refilled(getattr(self, name), state[name]))
        self.pools = [DecisionPool(points) for points in state["pools"]]
        self.pull, self.epochs = state["pull"], state["epochs"]
        if self.sets is not None:
            self.sets.restore(state.get("sets") or {})


_TREES = ("weights", "judged", "optimizer", "anchor")


@dataclass
class Judged:
    """The loss of every lane, and by sample."""

    mean: np.ndarray  # [L]
    values: list[np.ndarray]  # by lane, [n_l]
    weights: list[np.ndarray]

    def divided(self, sizes: list[int]) -> tuple[Judged, Judged]:
        """The first samples of every lane, so many, and the others."""
        cuts = [slice(size) for size in sizes], [slice(size, None) for size in sizes]
        return Judged.of(*self._cut(cuts[0])), Judged.of(*self._cut(cuts[1]))

    def _cut(self, cuts: list[slice]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        both = self.values, self.weights
        values, weights = ([a[cut] for a, cut in zip(arrays, cuts, strict=True)] for arrays in both)
        return values, weights

    @staticmethod
    def of(values: list[np.ndarray], weights: list[np.ndarray]) -> Judged:
        """With the weighted means."""
        mean = np.array([np.average(v, weights=w) for v, w in zip(values, weights, strict=True)])
        return Judged(mean, values, weights)


def padded(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Index lists of unequal length as one array [L, n] and a mask."""
    longest = max(part.size for part in parts)
    index = np.stack([np.concatenate([part, np.full(longest - part.size, part[0])]) for part in parts])
    mask = np.stack([(np.arange(longest) < part.size).astype(float) for part in parts])
    return index, mask
