"""Expressions follow NumPy: shapes, values, operators from either side; and they print."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.expressions.expression import Expression, evaluate

M = np.arange(6.0).reshape(2, 3) - 2.5
OPERATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "operators": (lambda x, A: 2.0 * x - x / 4.0 + 1.0 - (-x), lambda x, A: 2.0 * x - x / 4.0 + 1.0 + x),
    "array on the left": (lambda x, A: M[0] * x + M[1] - x, lambda x, A: M[0] * x + M[1] - x),
    "matmul from either side": (lambda x, A: M @ x + A @ x, lambda x, A: M @ x + A @ x),
    "row times matrix": (lambda x, A: x @ M.T, lambda x, A: x @ M.T),
    "quadratic": (lambda x, A: x @ ((M.T @ M) @ x), lambda x, A: x @ (M.T @ M) @ x),
    "quad_form": (lambda x, A: dg.quad_form(x, M.T @ M), lambda x, A: x @ (M.T @ M) @ x),
    "slices": (lambda x, A: x[1:] * A[0, :2] + x[::-1][0], lambda x, A: x[1:] * A[0, :2] + x[::-1][0]),
    "fancy": (lambda x, A: A[[1, 0, 1], [2, 2, 0]], lambda x, A: A[[1, 0, 1], [2, 2, 0]]),
    "mask": (lambda x, A: x[np.array([True, False, True])], lambda x, A: x[[0, 2]]),
    "sums": (lambda x, A: A.sum(0) + dg.sum(A) + A.sum(axis=-1).sum(), lambda x, A: A.sum(0) + 2 * A.sum()),
    "mean": (lambda x, A: A.mean(1) + dg.mean(x), lambda x, A: A.mean(1) + x.mean()),
    "transpose": (lambda x, A: A.T @ A.sum(1), lambda x, A: A.T @ A.sum(1)),
    "reshape": (lambda x, A: A.reshape(3, -1) + dg.reshape(A, (3, 2)), lambda x, A: 2 * A.reshape(3, 2)),
    "joins": (
        lambda x, A: dg.concatenate([x, A.flatten()]) * 2.0,
        lambda x, A: 2 * np.concatenate([x, A.ravel()]),
    ),
    "stack": (lambda x, A: dg.stack([x, x * x], axis=1), lambda x, A: np.stack([x, x * x], 1)),
    "vstack": (lambda x, A: dg.vstack([A, x]), lambda x, A: np.vstack([A, x])),
    "hstack": (lambda x, A: dg.hstack([x, x[0]]), lambda x, A: np.hstack([x, x[0]])),
    "broadcast": (lambda x, A: A * x + x.reshape(1, 3), lambda x, A: A * x + x),
    "powers": (lambda x, A: x**2 + dg.square(x) + abs(x) ** 0.5, lambda x, A: 2 * x**2 + np.abs(x) ** 0.5),
    "base": (lambda x, A: 2.0**x, lambda x, A: 2.0**x),
    "elementwise": (
        lambda x, A: dg.exp(x) + dg.log(x * x + 1.0) + dg.tanh(x) * dg.sin(x) - dg.arctan(x),
        lambda x, A: np.exp(x) + np.log(x * x + 1.0) + np.tanh(x) * np.sin(x) - np.arctan(x),
    ),
    "maximum": (
        lambda x, A: dg.maximum(A, x) - dg.minimum(x, 0.0),
        lambda x, A: np.maximum(A, x) - np.minimum(x, 0),
    ),
    "extremes": (lambda x, A: dg.max(A, 0) + dg.min(A), lambda x, A: A.max(0) + A.min()),
    "norms": (
        lambda x, A: dg.norm(x, 1) + dg.norm(x, np.inf) + dg.norm(x) + dg.sum_squares(A),
        lambda x, A: np.abs(x).sum() + np.abs(x).max() + np.sqrt((x**2).sum()) + (A**2).sum(),
    ),
    "diagonals": (
        lambda x, A: dg.diag(x) @ A.T + dg.trace(A[:, :2]),
        lambda x, A: np.diag(x) @ A.T + np.trace(A[:, :2]),
    ),
    "differences": (lambda x, A: dg.diff(x)[0] + dg.cumsum(x), lambda x, A: x[1] - x[0] + np.cumsum(x)),
    "sum of a generator": (lambda x, A: dg.sum(x[i] * i for i in range(3)), lambda x, A: x[1] + 2 * x[2]),
}


@pytest.mark.parametrize("name", OPERATIONS)
@given(values=st.lists(st.floats(-3.0, 3.0), min_size=9, max_size=9))
def test_expressions_evaluate_as_numpy_does(name: str, values: list[float]) -> None:
    ours, theirs = OPERATIONS[name]
    m = dg.Model()
    x, A = m.continuous("x", shape=3), m.parameter("A", shape=(2, 3))
    at = {"x": np.array(values[:3]), "A": np.array(values[3:]).reshape(2, 3)}
    expression, expected = ours(x, A), np.asarray(theirs(at["x"], at["A"]))
    assert isinstance(expression, Expression)
    assert expression.shape == expected.shape
    np.testing.assert_allclose(evaluate([expression], at, np)[0], expected, rtol=1e-12, atol=1e-12)
    assert str(expression)
    assert expression._repr_latex_().startswith("$")


def test_functions_of_plain_arrays_return_plain_arrays() -> None:
    assert isinstance(dg.sum(np.ones(3)), np.ndarray)
    assert float(dg.sum([1.0, 2.0])) == 3.0
    np.testing.assert_array_equal(dg.maximum(np.array([1.0, -1.0]), 0.0), [1.0, 0.0])


def test_printing() -> None:
    m = dg.Model()
    x, c = m.continuous("x", shape=3), m.parameter("cost", shape=3)
    assert str(dg.sum(c * x) + dg.sum(x * x)) == "sum(cost * x) + sum(x * x)"
    assert str(x - (x - 1.0)) == "x - (x + -1)" or str(x - (x - 1.0)) == "x - (x - 1)"
    assert str((x + 1.0) * 2.0) == "(x + 1) * 2"
    assert str(x[1:]) == "x[1:]"
    assert str(dg.sum(x) == 1.0) == "sum(x) == 1"
    assert (x <= 1.0)._repr_latex_() == r"$x \le 1$"


def test_misuse_is_named() -> None:
    m = dg.Model()
    x, y = m.continuous("x", shape=3), m.continuous("y", shape=2)
    with pytest.raises(ModelError, match=r"cannot add x \(3,\) and y \(2,\)"):
        x + y
    with pytest.raises(ModelError, match="out of bounds"):
        x[5]
    with pytest.raises(ModelError, match="contains NaN"):
        x + np.nan
    with pytest.raises(ModelError, match="strict inequalities"):
        x < 1.0  # noqa: B015
    with pytest.raises(ModelError, match="truth value"):
        bool(x)
    with pytest.raises(ModelError, match="symbolic"):
        float(x[0])
    with pytest.raises(ModelError, match="two constraints"):
        bool(x <= 1.0)
    with pytest.raises(ModelError, match="axis 2"):
        x.sum(2)
    with pytest.raises(ModelError, match="one number"):
        x ** np.ones(3)
    with pytest.raises(ModelError, match="cannot use"):
        x + "one"
    with pytest.raises(ModelError, match="ord must be"):
        dg.norm(x, 3)
    with pytest.raises(ModelError, match="quad_form needs"):
        dg.quad_form(x, np.eye(2))
