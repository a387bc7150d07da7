"""Independent answers for the tests of oracles, and the costs they are tried on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from solvers.programs import program, zero

from decigrad.oracles import LinearOracle
from decigrad.program import QuadraticProgram


def linear(cost: np.ndarray, **blocks: Any) -> QuadraticProgram:
    """A batched linear program with these costs [B, n]."""
    return program(zero(cost.shape[1]), cost, linear=True, **blocks)


def answer(oracle: LinearOracle, cost: np.ndarray) -> np.ndarray:
    """The oracle's solutions [B, n] in float64."""
    cost = np.asarray(cost, np.float64)
    with jax.enable_x64(True):
        x = oracle.minimize(cost, linear(cost))
    assert x.shape == cost.shape
    assert x.dtype == np.float64
    return np.asarray(x)


def costs(rng: np.random.Generator, batch: int, n: int, low: float = -1.0) -> np.ndarray:
    """Costs: one half integers from 3·low to 3, with many ties, the other half reals from low to 1."""
    many_ties = np.round(rng.uniform(3 * low - 0.5, 3.5, (batch // 2, n)))
    return np.concatenate([np.clip(many_ties, 3 * low, 3.0), rng.uniform(low, 1.0, (batch - batch // 2, n))])


def assert_first_minimizer(x: np.ndarray, cost: np.ndarray, points: np.ndarray) -> None:
    """x [B, n] is the first of `points` [K, n], listed by preference, among those of least cost.

    Values of random costs differ by more than rounding unless they are equal.
    """
    value = cost @ points.T
    least = value.min(axis=1, keepdims=True)
    np.testing.assert_array_equal(x, points[np.argmax(value <= least + 1e-9, axis=1)])


def subsets(n: int) -> np.ndarray:
    """All 0/1 vectors [2ⁿ, n]; those that leave the last items come first."""
    return np.array([bits[::-1] for bits in itertools.product((0.0, 1.0), repeat=n)])


def indicators(sets: Iterable[Sequence[int]], n: int) -> np.ndarray:
    """0/1 rows [K, n] of sets of indices."""
    sets = list(sets)
    rows = np.zeros((len(sets), n))
    for row, members in zip(rows, sets, strict=True):
        row[list(members)] = 1.0
    return rows
