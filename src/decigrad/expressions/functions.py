"""Functions of expressions, with NumPy's names. On plain numbers and arrays they return plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from decigrad.errors import ModelError
from decigrad.expressions import expression as _e
from decigrad.expressions.expression import Constant, Expression, as_expression


def _out(value: Expression) -> Any:
    return value.value if isinstance(value, Constant) else value


def sum(x: Any, axis: int | None = None) -> Any:
    """Sum of all entries of x, or along one axis. Accepts lists and generators of expressions."""
    if not isinstance(x, Expression | np.ndarray | list | tuple | int | float):
        x = list(x)
    return _out(as_expression(x).sum(axis))


def mean(x: Any, axis: int | None = None) -> Any:
    """Mean of all entries of x, or along one axis."""
    return _out(as_expression(x).mean(axis))


def max(x: Any, axis: int | None = None) -> Any:
    """Largest entry of x, overall or along one axis. Convex."""
    return _out(as_expression(x).max(axis))


def min(x: Any, axis: int | None = None) -> Any:
    """Smallest entry of x, overall or along one axis. Concave."""
    return _out(as_expression(x).min(axis))


def dot(a: Any, b: Any) -> Any:
    """aᵀb for vectors, the matrix product for matrices."""
    return _out(_e.apply("matmul", a, b))


matmul = dot


def multiply(a: Any, b: Any) -> Any:
    """Elementwise product."""
    return _out(_e.apply("multiply", a, b))


def quad_form(x: Any, Q: Any) -> Any:
    """xᵀ Q x for a vector x [n] and a matrix Q [n, n] (constant or parameter)."""
    x, Q = as_expression(x), as_expression(Q)
    if x.ndim != 1 or Q.shape != (x.size, x.size):
        raise ModelError(f"quad_form needs x [n] and Q [n, n], got shapes {x.shape} and {Q.shape}")
    return _out(x @ (Q @ x))


def square(x: Any) -> Any:
    """x², elementwise."""
    return _out(_e.power(as_expression(x), 2))


def sum_squares(x: Any) -> Any:
    """Sum of the squares of all entries, ‖x‖²."""
    return _out(_e.power(as_expression(x), 2).sum())


def power(x: Any, exponent: Any) -> Any:
    """The power x ** exponent, elementwise, for one number as the exponent."""
    return _out(_e.power(as_expression(x), exponent))


def norm(x: Any, ord: Any = 2) -> Any:
    """The 1-, 2- or ∞-norm of all entries of x (`ord` 1, 2 or `numpy.inf` / "inf")."""
    x = as_expression(x)
    if ord == 1:
        return _out(_e.apply("abs", x).sum())
    if ord in (np.inf, "inf"):
        return _out(_e.apply("abs", x).max())
    if ord == 2:
        return _out(_e.apply("norm", x))
    raise ModelError(f"norm: ord must be 1, 2 or inf, got {ord!r}")


def maximum(a: Any, b: Any) -> Any:
    """Elementwise maximum. Convex."""
    return _out(_e.apply("maximum", a, b))


def minimum(a: Any, b: Any) -> Any:
    """Elementwise minimum. Concave."""
    return _out(_e.apply("minimum", a, b))


def reshape(x: Any, shape: Any) -> Any:
    """The entries of x in another shape, in C order."""
    return _out(as_expression(x).reshape(shape))


def transpose(x: Any) -> Any:
    """The axes of x in reverse order."""
    return _out(as_expression(x).T)


def _axis_checked(parts: Any, name: str) -> list[Expression]:
    listed = [as_expression(p) for p in parts]
    if not listed:
        raise ModelError(f"{name}: needs at least one expression")
    return listed


def concatenate(parts: Any, axis: int = 0) -> Any:
    """Join expressions along an existing axis."""
    listed = _axis_checked(parts, "concatenate")
    return _out(_e.join(listed, lambda numbered: np.concatenate(numbered, axis), "concatenate"))


def stack(parts: Any, axis: int = 0) -> Any:
    """Join expressions of one shape along a new axis."""
    return _out(_e.stack(_axis_checked(parts, "stack"), axis))


def hstack(parts: Any) -> Any:
    """Join expressions as `numpy.hstack` does; scalars become entries of a vector."""
    return _out(_e.join(_axis_checked(parts, "hstack"), np.hstack, "hstack"))


def vstack(parts: Any) -> Any:
    """Join expressions as rows, as `numpy.vstack` does."""
    return _out(_e.join(_axis_checked(parts, "vstack"), np.vstack, "vstack"))


def diag(x: Any) -> Any:
    """The diagonal of a square matrix, or the diagonal matrix of a vector."""
    x = as_expression(x)
    if x.ndim == 2:
        return _out(_e.gather(x, np.diag, "diag({0})"))
    return _out(x.reshape(-1, 1) * np.eye(x.size))


def trace(x: Any) -> Any:
    """Sum of the diagonal."""
    return sum(diag(x))


def diff(x: Any) -> Any:
    """Differences of neighbouring entries along the first axis, x[1:] − x[:-1]."""
    x = as_expression(x)
    return _out(x[1:] - x[:-1])


def cumsum(x: Any) -> Any:
    """Running sum of a vector."""
    x = as_expression(x)
    if x.ndim != 1:
        raise ModelError(f"cumsum needs a vector, got shape {x.shape}")
    return _out(np.tril(np.ones((x.size, x.size))) @ x)


def _elementwise(name: str, meaning: str) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        return _out(_e.apply(name, x))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{meaning}, elementwise."
    return function


abs = _elementwise("abs", "Absolute value (convex)")
exp = _elementwise("exp", "Exponential")
log = _elementwise("log", "Natural logarithm")
log1p = _elementwise("log1p", "log(1 + x)")
expm1 = _elementwise("expm1", "exp(x) − 1")
sqrt = _elementwise("sqrt", "Square root")
sin = _elementwise("sin", "Sine")
cos = _elementwise("cos", "Cosine")
tan = _elementwise("tan", "Tangent")
arcsin = _elementwise("arcsin", "Inverse sine")
arccos = _elementwise("arccos", "Inverse cosine")
arctan = _elementwise("arctan", "Inverse tangent")
sinh = _elementwise("sinh", "Hyperbolic sine")
cosh = _elementwise("cosh", "Hyperbolic cosine")
tanh = _elementwise("tanh", "Hyperbolic tangent")
arcsinh = _elementwise("arcsinh", "Inverse hyperbolic sine")
arccosh = _elementwise("arccosh", "Inverse hyperbolic cosine")
arctanh = _elementwise("arctanh", "Inverse hyperbolic tangent")

__all__ = [
    "abs",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctanh",
    "concatenate",
    "cos",
    "cosh",
    "cumsum",
    "diag",
    "diff",
    "dot",
    "exp",
    "expm1",
    "hstack",
    "log",
    "log1p",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "multiply",
    "norm",
    "power",
    "quad_form",
    "reshape",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "stack",
    "sum",
    "sum_squares",
    "tan",
    "tanh",
    "trace",
    "transpose",
    "vstack",
]
