"""The table of operations: how each is evaluated (NumPy or JAX), shaped and printed.

An operation is data. Expressions hold a name from this table and arguments; evaluation, shape inference,
printing and canonicalization dispatch on the name. `gather` stands for every rearrangement (index,
slice, reshape, transpose, broadcast, concatenate, stack): each output entry is exactly one input entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Gather:
    """Output entry i is entry `flat[i]` of the raveled, concatenated arguments; printed with `label`."""

    flat: np.ndarray
    shape: Shape
    label: str

    def key(self) -> tuple[Any, ...]:
        return self.shape, self.flat.tobytes()


@dataclass(frozen=True)
class Operation:
    """One row of the table.

    `evaluate(xp, attribute, *arguments)` computes the value; `shape(attribute, *shapes)` infers its shape;
    `text` and `latex` are format strings over the printed arguments, `precedence` that of the result.
    """

    evaluate: Callable[..., Any]
    shape: Callable[..., Shape]
    text: str
    latex: str
    precedence: int = 100


def _broadcast(_attribute: Any, *shapes: Shape) -> Shape:
    return np.broadcast_shapes(*shapes)


def _matmul_shape(_attribute: Any, a: Shape, b: Shape) -> Shape:
    if not 1 <= len(a) <= 2 or not 1 <= len(b) <= 2 or a[-1] != b[0]:
        raise ValueError(f"matmul: shapes {a} and {b} do not fit")
    return a[:-1] + b[1:]


def _reduced_shape(axis: int | None, shape: Shape) -> Shape:
    if axis is None:
        return ()
    return shape[:axis] + shape[axis + 1 :]


def _evaluate_gather(xp: Any, how: Gather, *arguments: Any) -> Any:
    flat = (
        arguments[0].reshape(-1)
        if len(arguments) == 1
        else xp.concatenate([a.reshape(-1) for a in arguments])
    )
    if how.flat.size == flat.shape[0] and np.array_equal(how.flat, np.arange(how.flat.size)):
        return flat.reshape(how.shape)
    return flat[how.flat].reshape(how.shape)


def _evaluate_norm(xp: Any, _attribute: Any, x: Any) -> Any:
    return xp.sqrt((x * x).sum())


def _elementwise(name: str, latex: str) -> Operation:
    return Operation(lambda xp, _a, *x: getattr(xp, name)(*x), _broadcast, name + "({0})", latex)


OPERATIONS: dict[str, Operation] = {
    "add": Operation(lambda xp, _a, x, y: x + y, _broadcast, "{0} + {1}", "{0} + {1}", 10),
    "negative": Operation(lambda xp, _a, x: -x, _broadcast, "-{0}", "-{0}", 20),
    "multiply": Operation(lambda xp, _a, x, y: x * y, _broadcast, "{0} * {1}", r"{0} \circ {1}", 30),
    "divide": Operation(lambda xp, _a, x, y: x / y, _broadcast, "{0} / {1}", r"{0} / {1}", 30),
    "matmul": Operation(lambda xp, _a, x, y: x @ y, _matmul_shape, "{0} @ {1}", r"{0}\, {1}", 30),
    "power": Operation(lambda xp, p, x: x**p, _broadcast, "{0}**{p}", "{0}^{{{p}}}", 40),
    "sum": Operation(lambda xp, axis, x: x.sum(axis), _reduced_shape, "sum({0})", r"\textstyle\sum {0}"),
    "max": Operation(lambda xp, axis, x: x.max(axis), _reduced_shape, "max({0})", r"\max {0}"),
    "min": Operation(lambda xp, axis, x: x.min(axis), _reduced_shape, "min({0})", r"\min {0}"),
    "norm": Operation(_evaluate_norm, lambda _a, s: (), "norm({0})", r"\lVert {0} \rVert_2"),
    "gather": Operation(_evaluate_gather, lambda how, *s: how.shape, "{label}", "{label}"),
    "maximum": Operation(
        lambda xp, _a, x, y: xp.maximum(x, y), _broadcast, "maximum({0}, {1})", r"\max({0},\, {1})"
    ),
    "minimum": Operation(
        lambda xp, _a, x, y: xp.minimum(x, y), _broadcast, "minimum({0}, {1})", r"\min({0},\, {1})"
    ),
    "abs": Operation(lambda xp, _a, x: xp.abs(x), _broadcast, "abs({0})", r"\lvert {0} \rvert"),
    "sqrt": Operation(lambda xp, _a, x: xp.sqrt(x), _broadcast, "sqrt({0})", r"\sqrt{{{0}}}"),
}
for _name in "exp log sin cos tan sinh cosh tanh".split():
    OPERATIONS[_name] = _elementwise(_name, rf"\{_name}({{0}})")
for _name in "arcsin arccos arctan arcsinh arccosh arctanh log1p expm1".split():
    OPERATIONS[_name] = _elementwise(
        _name, rf"\operatorname{{{_name}}}({{0}})".replace("{" + _name + "}", "{{" + _name + "}}")
    )
