"""Warm starts in training: a sample's last active set is what its next solve tries first.

A step moves predictions a little, so most samples keep their active set: one linear system confirms it, and
the solution is that of a cold start. Sets belong to the lane and the sample, never to the solver, and a
checkpoint holds them, so that a resumed training takes the same path as one that was never interrupted.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from decigrad.layer import DecisionLayer
from decigrad.program import Start

LARGEST = 2**28
"""Bytes of active sets that a training keeps; where all samples would take more, it starts cold."""


def gathered(kept: Start, index: Any) -> Start:
    """The sets [S·L·B, ·] of a query on the samples `index` [L, B] among those kept, [S, L, N, ·]."""
    at, size = (slice(None), np.arange(len(index))[:, None], index), len(kept.fixed) * index.size
    return Start(*(a[at].reshape(size, a.shape[-1]) for a in (kept.active, kept.fixed)))


def scattered(kept: Start, index: Any, found: Start) -> Start:
    """The kept sets with those found on the samples `index`: NumPy arrays in place, JAX arrays anew."""
    at = slice(None), np.arange(len(index))[:, None], index

    def filled(old: Any, new: Any) -> Any:
        new = new.reshape(len(old), *index.shape, old.shape[-1])
        if isinstance(old, jnp.ndarray):
            return old.at[at].set(new)
        old[at] = new
        return old

    return Start(filled(kept.active, found.active), filled(kept.fixed, found.fixed))


class ActiveSets:
    """The last active sets of every lane's samples, by query."""

    def __init__(self, layer: DecisionLayer, samples: int) -> None:
        self.warm = bool(getattr(layer.solver, "warm", False))
        self.samples = samples
        self.kept: dict[str, Start | None] = {}
        """By query, sets [S, lanes, samples, ·]; None where they would take too much."""

    def begin(self, label: str, queries: int, lanes: int, rows: int, variables: int) -> None:
        """Room for a query's sets, empty ones, if there is none yet; `queries` are asked for each sample."""
        if not self.warm or label in self.kept:
            return
        shape = queries, lanes, self.samples
        small = np.prod(shape) * (rows + variables) <= LARGEST
        empty = Start(np.zeros((*shape, rows), bool), np.zeros((*shape, variables), np.int8))
        self.kept[label] = empty if small else None

    def start(self, label: str, index: np.ndarray) -> Start | None:
        """Where to start a query [..., L, B] on the samples `index` [L, B]; None: cold."""
        kept = self.kept.get(label)
        return None if kept is None else gathered(kept, index)

    def keep(self, label: str, index: np.ndarray, found: Start) -> None:
        """Remember how the query on the samples `index` [L, B] ended."""
        queries = len(found.fixed) // index.size
        self.begin(label, queries, len(index), found.active.shape[1], found.fixed.shape[1])
        if (kept := self.kept.get(label)) is not None:
            self.kept[label] = scattered(kept, index, found)

    def state(self) -> Any:
        """What a checkpoint keeps: by query, three bits for each variable and row at most."""
        return {
            label: None
            if kept is None
            else {
                "shape": list(kept.fixed.shape), "rows": kept.active.shape[-1],
                "active": np.packbits(np.asarray(kept.active)),
                "below": np.packbits(np.asarray(kept.fixed) < 0),
                "above": np.packbits(np.asarray(kept.fixed) > 0),
            }
            for label, kept in self.kept.items()
        }  # fmt: skip

    def restore(self, state: Any) -> None:
        """Go on from there."""
        self.kept = {label: None if kept is None else _unpacked(kept) for label, kept in state.items()}


def _unpacked(kept: dict[str, Any]) -> Start:
    shape = tuple(kept["shape"])
    rows = (*shape[:-1], kept["rows"])

    def bits(name: str, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape))
        return np.unpackbits(np.asarray(kept[name]), count=size).reshape(shape)

    fixed = bits("above", shape).astype(np.int8) - bits("below", shape).astype(np.int8)
    return Start(bits("active", rows).astype(bool), fixed)
