"""The quadratic part of an objective: its structure, and the check that it is convex."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from decigrad.canonical.blocks import Block, block
from decigrad.canonical.forms import Form, at, positions, times
from decigrad.errors import NonConvexError
from decigrad.program import Diagonal, LowRank, Operator

CONVEXITY_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Factor:
    """Adds Fᵀdiag(v)H + Hᵀdiag(v)F to P, with F, H [k, n]; H is F for sums of squares (then Fᵀdiag(2v)F)."""

    left: Block
    right: Block | None
    weight: Block


def check_convex(P: Operator) -> None:
    """Raise `NonConvexError` with the offending eigenvalue unless P (single) is positive semidefinite."""
    if isinstance(P, Diagonal):
        values, vectors = P.diagonal, np.eye(P.shape[0])
    else:
        if isinstance(P, LowRank) and (P.diagonal >= 0).all() and (P.weight >= 0).all():
            return
        matrix = P.dense()
        try:
            np.linalg.cholesky(matrix)
            return
        except np.linalg.LinAlgError:
            values, vectors = np.linalg.eigh(matrix)
    worst = int(np.argmin(values)) if values.size else 0
    if values.size and values[worst] < -CONVEXITY_TOLERANCE * np.abs(values).max():
        raise NonConvexError(
            f"the quadratic objective is not convex: its matrix has the eigenvalue {values[worst]:.6g} "
            f"(minimization form); check the sign of the quadratic terms",
            float(values[worst]),
            vectors[:, worst],
        )


def quadratic(goal: Form, n: int) -> tuple[Block, tuple[Factor, ...], str]:
    """P's pattern: the entries (or the diagonal) as a block, sums of squares of dense rows as factors."""
    pairs: list[tuple[np.ndarray, np.ndarray, Any]] = []
    factors: list[Factor] = []
    for product in goal.products:
        counts = [
            np.bincount(part.entries()[0], minlength=part.size)[product.slots]
            for part in (product.a, product.b)
        ]
        rows = int(product.slots.size)
        expanded = int((counts[0] * counts[1]).sum())
        if (
            expanded <= max(2 * n, 64)
            or min(int(c.max(initial=0)) for c in counts) <= 1
            or expanded <= n * rows // 2
        ):
            pairs.append(_expanded(product))
        else:
            factors.append(_factor(product, n))
    if not pairs and not factors:
        return block((n,)), (), "zero"
    diagonal = all((i == j).all() for i, j, _ in pairs)
    squares = all(f.right is None for f in factors)
    rank = sum(f.weight.shape[0] for f in factors)
    if diagonal and not factors:
        return block((n,), *[(i, _twice(v)) for i, _, v in pairs]), (), "diagonal"
    if diagonal and squares and rank <= n // 3:
        return block((n,), *[(i, _twice(v)) for i, _, v in pairs]), (_merged(factors, n),), "low-rank"
    entries = [(i * n + j, v) for i, j, v in pairs] + [(j * n + i, v) for i, j, v in pairs]
    return block((n, n), *entries), tuple(factors), "dense"


def _twice(value: Any) -> Any:
    return value * np.float64(2.0)


def _expanded(product: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """Entries (i, j, v) with Σ v xᵢ xⱼ = the product."""
    ra, ca, va = product.a.entries()
    rb, cb, vb = product.b.entries()
    entry_a, item = positions(product.slots, ra, product.a.size)
    entry_b, back = positions(product.slots[item], rb, product.b.size)
    value = times(times(at(va, entry_a[back]), at(vb, entry_b)), at(product.value, item[back]))
    return ca[entry_a[back]], cb[entry_b], value


def _factor(product: Any, n: int) -> Factor:
    slots, inverse = np.unique(product.slots, return_inverse=True)
    place = np.full(product.a.size, -1)
    place[slots] = np.arange(slots.size)

    def rows_of(form: Form) -> Block:
        entries = []
        for t in form.linear:
            used = place[t.rows] >= 0
            entries.append((place[t.rows[used]] * n + t.cols[used], t.value[used]))
        return block((slots.size, n), *entries)

    same = product.a is product.b
    weight = block((slots.size,), (inverse.reshape(-1), product.value))
    return Factor(rows_of(product.a), None if same else rows_of(product.b), weight)


def _merged(factors: list[Factor], n: int) -> Factor:
    if len(factors) == 1:
        return factors[0]

    def stacked(blocks: list[Block], width: int) -> Block:
        rows = [b.shape[0] for b in blocks]
        base = np.concatenate([b.base for b in blocks])
        offsets = np.cumsum([0, *rows]) * width
        pieces = [(index + o, v) for b, o in zip(blocks, offsets, strict=False) for index, v in b.pieces]
        shape = (sum(rows), width) if len(blocks[0].shape) == 2 else (sum(rows),)
        return Block(shape, base, tuple(pieces))

    return Factor(stacked([f.left for f in factors], n), None, stacked([f.weight for f in factors], 1))
