"""Warm starts in training: a sample's last active set is what its next solve tries first.

A step moves predictions a little, so most samples keep their active set: one linear system confirms it, and
the solution is that of a cold start. Sets belong to the lane and the sample, never to the solver, and a
checkpoint holds them, so that a resumed training takes the same path as one that was never interrupted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from decigrad.layer import DecisionLayer
from decigrad.program import RawResult, Start

LARGEST = 2**28
"""Bytes of active sets that a training keeps; where all samples would take more, it starts cold."""


class ActiveSets:
    """The last active sets of every lane's samples, by query."""

    def __init__(self, layer: DecisionLayer, samples: int) -> None:
        self.warm = bool(getattr(layer.solver, "warm", False))
        self.samples = samples
        self._kept: dict[str, tuple[np.ndarray, np.ndarray] | None] = {}

    def start(self, label: str, index: np.ndarray) -> Start | None:
        """Where to start a query [..., L, B] on the samples `index` [L, B]; None: cold."""
        kept = self._kept.get(label)
        if kept is None:
            return None
        lane = np.arange(len(index))[:, None]
        return Start(*(a[:, lane, index].reshape(len(a) * index.size, a.shape[-1]) for a in kept))

    def keep(self, label: str, index: np.ndarray, raw: RawResult) -> None:
        """Remember how the query on the samples `index` [L, B] ended."""
        if not self.warm:
            return
        found = raw.active, raw.fixed
        if label not in self._kept:
            shape = len(raw.x) // index.size, len(index), self.samples
            small = np.prod(shape) * sum(a.shape[-1] for a in found) <= LARGEST
            self._kept[label] = (
                tuple(np.zeros((*shape, a.shape[-1]), a.dtype) for a in found) if small else None  # type: ignore[assignment]
            )
        kept: Any = self._kept[label]
        if kept is not None:
            lane = np.arange(len(index))[:, None]
            for all_sets, sets in zip(kept, found, strict=True):
                all_sets[:, lane, index] = sets.reshape(len(all_sets), *index.shape, sets.shape[-1])

    def state(self) -> Any:
        """What a checkpoint keeps: by query, three bits for each variable and row at most."""
        return {
            label: None
            if kept is None
            else {
                "shape": list(kept[1].shape), "rows": kept[0].shape[-1], "active": np.packbits(kept[0]),
                "below": np.packbits(kept[1] < 0), "above": np.packbits(kept[1] > 0),
            }
            for label, kept in self._kept.items()
        }  # fmt: skip

    def restore(self, state: Any) -> None:
        """Go on from there."""
        self._kept = {label: None if kept is None else _unpacked(kept) for label, kept in state.items()}


def _unpacked(kept: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    shape = tuple(kept["shape"])
    rows = (*shape[:-1], kept["rows"])

    def bits(name: str, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape))
        return np.unpackbits(np.asarray(kept[name]), count=size).reshape(shape)

    fixed = bits("above", shape).astype(np.int8) - bits("below", shape).astype(np.int8)
    return bits("active", rows).astype(bool), fixed
