"""Blocks: arrays of a program, filled in from constants and values of parameter expressions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from decigrad.expressions.expression import Expression, parameters_of


@dataclass(frozen=True)
class Block:
    """An array filled by scattering: constant `base` plus, for each piece, base[index[k]] += value[k]."""

    shape: tuple[int, ...]
    base: np.ndarray
    pieces: tuple[tuple[np.ndarray, Expression], ...] = ()

    @property
    def depends(self) -> frozenset[str]:
        """Names of the parameters that enter."""
        return frozenset(parameters_of(*(value for _, value in self.pieces)))

    def fill(self, values: list[Any], xp: Any) -> Any:
        """The array, given the values of the pieces."""
        if not self.pieces:
            return self.base.reshape(self.shape)
        flat = xp.asarray(self.base, dtype=xp.result_type(float))
        for (index, _), value in zip(self.pieces, values, strict=True):
            flat = _scatter_add(flat, index, value.reshape(-1), xp)
        return flat.reshape(self.shape)


def _scatter_add(flat: Any, index: np.ndarray, value: Any, xp: Any) -> Any:
    size = flat.shape[0]
    if index.size == size and np.array_equal(index, np.arange(size)):
        return flat + value
    if xp is np:
        return flat + np.bincount(index, value, size)
    if np.unique(index).size == index.size:  # a gather is faster than a scatter, and so is its transpose
        source = np.zeros(size, int)
        source[index] = np.arange(index.size)
        hit = np.zeros(size, bool)
        hit[index] = True
        return flat + xp.where(hit, value[source], 0.0)
    return xp.asarray(flat).at[index].add(value)


def block(shape: tuple[int, ...], *entries: tuple[np.ndarray, Any]) -> Block:
    """The block that sums the entries (index, value); constant values go into its base."""
    size = int(np.prod(shape, dtype=int))
    base = np.zeros(size)
    pieces = []
    for index, value in entries:
        if isinstance(value, np.ndarray):
            base += np.bincount(index, value, size) if index.size else 0.0
        elif index.size:
            pieces.append((index, value))
    return Block(shape, base, tuple(pieces))
