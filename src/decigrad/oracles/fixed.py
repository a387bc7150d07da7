"""Arrays as values: what an oracle is built from, checked, hashable and equal by content."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from decigrad.errors import ModelError
from decigrad.program import Array


class FixedArray:
    """A read-only array, equal to another of the same shape, type and content; `np.asarray` gives it."""

    __slots__ = ("_key", "array")

    def __init__(self, array: Any) -> None:
        self.array = np.array(array)
        self.array.setflags(write=False)
        self._key = self.array.shape, self.array.dtype.str, self.array.tobytes()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.array, dtype, copy=copy)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FixedArray) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __reduce__(self) -> tuple[Any, ...]:
        return FixedArray, (self.array,)

    def __len__(self) -> int:
        return len(self.array)

    def __repr__(self) -> str:
        return f"<array {list(self.array.shape)}>"


def positive(name: str, value: Any) -> int:
    """`value` as an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ModelError(f"{name} must be an integer of at least 1, got {value!r}")
    return int(value)


def finite(name: str, value: Any, ndim: int) -> np.ndarray:
    """`value` as a nonempty float64 array with `ndim` axes and no NaN or infinity."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{name} needs numbers: {error}") from None
    if array.ndim != ndim or array.size == 0:
        raise ModelError(f"{name} must be a nonempty array with {ndim} axes, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ModelError(f"{name} contains NaN or infinite values")
    return array + 0.0  # no −0, so that equal arrays have equal bytes


def integers(name: str, value: Any, ndim: int) -> np.ndarray:
    """`value` as a nonempty int64 array with `ndim` axes."""
    array = finite(name, value, ndim)
    if (array != np.round(array)).any():
        first = array[array != np.round(array)].flat[0]
        raise ModelError(f"{name} must be integers, got {first:g}")
    return array.astype(np.int64)


def edge_list(edges: Any, num_nodes: int) -> np.ndarray:
    """Edges as an int64 array [E, 2] of nodes 0 to num_nodes − 1."""
    array = integers("edges", edges, 2)
    if array.shape[1] != 2:
        raise ModelError(f"edges must be pairs of nodes [E, 2], got shape {array.shape}")
    wrong = ((array < 0) | (array >= num_nodes)).any(axis=1)
    if wrong.any():
        e = int(np.flatnonzero(wrong)[0])
        raise ModelError(f"edge {e} is {tuple(array[e].tolist())}: nodes are 0 to {num_nodes - 1}")
    return array


def one_hot_rows(index: Array, n: int, dtype: Any) -> Array:
    """0/1 rows [B, n] with ones at `index` [k, B]; an index of n marks nothing."""
    batch = index.shape[1]
    return jnp.zeros((batch, n), dtype).at[jnp.arange(batch), index].set(1, mode="drop")
