"""Matching: rows assigned to columns at least cost, at costs that depend on features by a polynomial.

    minimize    Σ cᵢⱼ xᵢⱼ      s.t.  Σⱼ xᵢⱼ = 1 for every row,  Σᵢ xᵢⱼ ≤ 1 for every column,  0 ≤ x ≤ 1

with rows < columns; = 1 for every column where there are as many as rows; the columns are the ones that must
be matched where there are more rows. Features φ ~ N(0, I_p), a matrix B of independent Bernoulli(½) entries,
and for every pair

    c = [ (Bφ/√p + 3)^degree + 1 ] / 3.5^degree · U(1 − noise, 1 + noise)

Draws: B, φ, the noise. There are no published figures for it; matchings with learned costs on other
data: Ferber, Wilder, Dilkina and Tambe (2020), "MIPaaL", AAAI, doi:10.1609/aaai.v34i02.5509.

Source of the costs: Elmachtoub and Grigas (2022), Smart "Predict, then Optimize", doi:10.1287/mnsc.2020.3922.
"""

from __future__ import annotations

import numpy as np

import decigrad as dg
from decigrad.problems._polynomial import linear_model, polynomial_costs


def matching_model(rows: int = 6, cols: int = 6) -> dg.Model:
    """The assignment as a linear program, whose vertices are integral.

    Parameter `cost` and variable `x`, [rows · cols] each, row by row.
    """
    size = dg.oracles.Assignment(rows, cols).size()
    by_row = np.kron(np.eye(rows), np.ones((1, cols)))
    by_column = np.kron(np.ones((1, rows)), np.eye(cols))
    must, may = (by_row, by_column) if rows <= cols else (by_column, by_row)
    m, x = linear_model(f"matching {rows}x{cols}", size)
    m.subject_to(must @ x == 1.0, name="matched")
    # As many rows as columns: every column is used. As an inequality no point would satisfy it strictly, and
    # a barrier needs one that does.
    m.subject_to(may @ x == 1.0 if rows == cols else may @ x <= 1.0, name="once")
    return m


def matching_layer(rows: int = 6, cols: int = 6) -> dg.DecisionLayer:
    """The model, solved by an assignment algorithm (`oracles.Assignment`)."""
    return dg.DecisionLayer(matching_model(rows, cols), solver=dg.oracles.Assignment(rows, cols))


def matching_samples(
    n: int,
    seed: int = 42,
    *,
    features: int = 5,
    rows: int = 6,
    cols: int = 6,
    degree: int = 4,
    noise: float = 0.5,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw features [n, p], costs [n, rows·cols], and the expected costs given the features.

    Args:
        n: number of samples.
        seed: of the draws.
        features: p.
        rows, cols: of the matrix of costs.
        degree: of the polynomial, at least 1.
        noise: half-width of the uniform multiplicative noise, 0 ≤ noise < 1.

    >>> x, costs, expected = matching_samples(100, rows=2, cols=3)
    >>> x.shape, costs.shape, expected.shape
    ((100, 5), (100, 6), (100, 6))
    """
    return polynomial_costs(n, seed, dg.oracles.Assignment(rows, cols).size(), features, degree, noise)
