"""Expressions: constants, variables, parameters, and operations on them, with NumPy's shape rules.

An expression is an immutable node of a directed acyclic graph. Operators work from either side with
NumPy arrays and numbers; `==`, `<=`, `>=` make constraints. Subexpressions without variables and
parameters are computed at once, so a node is a constant exactly when its value is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from decigrad.errors import ModelError
from decigrad.expressions.operations import OPERATIONS, Gather, Shape


class Expression:
    """A scalar or array-valued expression in variables and parameters; `shape` follows NumPy."""

    __array_ufunc__ = None  # NumPy arrays on the left hand over to our reflected operators
    __hash__ = object.__hash__

    shape: Shape
    operation: str = ""
    attribute: Any = None
    arguments: tuple[Expression, ...] = ()
    has_variables: bool = False
    is_constant: bool = False

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=int))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def T(self) -> Expression:
        return gather(self, lambda index: index.T, "{0}.T")

    def reshape(self, *shape: Any) -> Expression:
        """The same entries in another shape, in C order; one dimension may be -1."""
        target = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        return gather(self, lambda index: index.reshape(target), f"{{0}}.reshape{tuple(target)}")

    def flatten(self) -> Expression:
        return self.reshape(-1)

    ravel = flatten

    def sum(self, axis: int | None = None) -> Expression:
        """Sum of all entries, or along one axis."""
        return reduce("sum", self, axis)

    def mean(self, axis: int | None = None) -> Expression:
        """Mean of all entries, or along one axis."""
        total = self.sum(axis)
        return total / (self.size // max(total.size, 1))

    def max(self, axis: int | None = None) -> Expression:
        """Largest entry, overall or along one axis (convex)."""
        return reduce("max", self, axis)

    def min(self, axis: int | None = None) -> Expression:
        """Smallest entry, overall or along one axis (concave)."""
        return reduce("min", self, axis)

    def dot(self, other: Any) -> Expression:
        return self @ other

    def __getitem__(self, index: Any) -> Expression:
        if isinstance(index, Expression):
            raise ModelError(f"an index must be numbers, not the expression {index}")
        return gather(self, lambda positions: positions[index], f"{{0}}[{_index_text(index)}]")

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"{self} is a scalar; it has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Expression]:
        return (self[i] for i in range(len(self)))

    def __add__(self, other: Any) -> Expression:
        return apply("add", self, other)

    def __radd__(self, other: Any) -> Expression:
        return apply("add", other, self)

    def __sub__(self, other: Any) -> Expression:
        return apply("add", self, apply("negative", other))

    def __rsub__(self, other: Any) -> Expression:
        return apply("add", other, apply("negative", self))

    def __mul__(self, other: Any) -> Expression:
        return apply("multiply", self, other)

    def __rmul__(self, other: Any) -> Expression:
        return apply("multiply", other, self)

    def __truediv__(self, other: Any) -> Expression:
        return apply("divide", self, other)

    def __rtruediv__(self, other: Any) -> Expression:
        return apply("divide", other, self)

    def __matmul__(self, other: Any) -> Expression:
        return apply("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Expression:
        return apply("matmul", other, self)

    def __neg__(self) -> Expression:
        return apply("negative", self)

    def __pos__(self) -> Expression:
        return self

    def __abs__(self) -> Expression:
        return apply("abs", self)

    def __pow__(self, exponent: Any) -> Expression:
        return power(self, exponent)

    def __rpow__(self, base: Any) -> Expression:
        return apply("exp", apply("multiply", np.log(base), self))

    def __le__(self, other: Any) -> Any:
        return _constraint(self, "<=", other)

    def __ge__(self, other: Any) -> Any:
        return _constraint(self, ">=", other)

    def __eq__(self, other: Any) -> Any:
        return _constraint(self, "==", other)

    def __lt__(self, other: Any) -> Any:
        raise ModelError("strict inequalities have no optimum in general: write <= or >=")

    __gt__ = __lt__

    def __bool__(self) -> bool:
        raise ModelError(f"the truth value of the expression {self} is not known; it is a symbol")

    def __float__(self) -> float:
        raise ModelError(f"{self} is symbolic; solve the model and read `solution.x`")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self} shape={self.shape}>"

    def __str__(self) -> str:
        return to_text(self)

    def _repr_latex_(self) -> str:
        from decigrad.expressions.printing import to_latex

        return f"${to_latex(self)}$"


class Constant(Expression):
    """A known number or array (float64)."""

    is_constant = True

    def __init__(self, value: Any) -> None:
        try:
            self.value = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ModelError(f"cannot use {value!r} in an expression: {error}") from None
        if np.isnan(self.value).any():
            raise ModelError(f"a constant in an expression contains NaN: {value!r}")
        self.shape = self.value.shape


class Variable(Expression):
    """A decision variable. `kind` is "continuous", "integer" or "binary"; bounds may hold parameters."""

    has_variables = True

    def __init__(self, name: str, shape: Shape, lb: Expression, ub: Expression, kind: str) -> None:
        self.name, self.shape, self.lb, self.ub, self.kind = name, shape, lb, ub, kind


class Parameter(Expression):
    """A number or array given at solve time: predicted, or `known` when the decision is made.

    `nonneg=True` declares (and checks) that it is never negative, so that it may scale convex terms.
    """

    def __init__(self, name: str, shape: Shape, value: Any, known: bool, nonneg: bool) -> None:
        self.name, self.shape, self.known, self.nonneg = name, shape, known, nonneg
        self._value: np.ndarray | None = None
        if value is not None:
            self.value = value

    @property
    def value(self) -> np.ndarray | None:
        """The current value (float64), or None where none was given."""
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value = self.validated(value)

    def validated(self, value: Any) -> np.ndarray:
        """The value as a float64 array of this shape; raises `ModelError` that names the parameter."""
        try:
            array = np.array(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ModelError(f"parameter {self.name!r} needs numbers: {error}") from None
        if array.shape != self.shape:
            raise ModelError(f"parameter {self.name!r} has shape {self.shape}, got {array.shape}")
        self.check(array)
        return array

    def check(self, array: np.ndarray) -> None:
        """Refuse NaN, infinite and (where declared) negative entries, naming the first one.

        `array` may have leading batch axes before this parameter's shape.
        """
        bad = ~np.isfinite(array)
        what = "is NaN or infinite"
        if not bad.any() and self.nonneg:
            bad, what = array < 0, "is negative, but the parameter was declared nonneg=True"
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            batch, entry = where[: array.ndim - self.ndim], where[array.ndim - self.ndim :]
            sample = f" of sample {batch[0] if len(batch) == 1 else batch}" if batch else ""
            raise ModelError(f"parameter {self.name!r}: entry {list(entry)}{sample} {what} ({array[where]})")


class Operated(Expression):
    """An operation of `operations.OPERATIONS` on arguments."""

    def __init__(
        self, operation: str, arguments: tuple[Expression, ...], attribute: Any, shape: Shape
    ) -> None:
        self.operation, self.arguments, self.attribute, self.shape = operation, arguments, attribute, shape
        self.has_variables = any(a.has_variables for a in arguments)


def as_expression(value: Any) -> Expression:
    """An expression unchanged, anything else as a `Constant`; lists of expressions are stacked."""
    if isinstance(value, Expression):
        return value
    if isinstance(value, list | tuple) and any(isinstance(v, Expression) for v in value):
        return stack([as_expression(v) for v in value], 0)
    return Constant(value)


def apply(operation: str, *values: Any, attribute: Any = None) -> Expression:
    """The operation on the values: a constant when all are constants."""
    arguments = tuple(as_expression(v) for v in values)
    rule = OPERATIONS[operation]
    try:
        shape = rule.shape(attribute, *(a.shape for a in arguments))
    except ValueError as error:
        shown = " and ".join(f"{_short(a)} {a.shape}" for a in arguments)
        raise ModelError(f"cannot {operation} {shown}: {error}") from None
    if all(isinstance(a, Constant) for a in arguments):
        with np.errstate(all="ignore"):
            return Constant(rule.evaluate(np, attribute, *(a.value for a in arguments)))  # type: ignore[attr-defined]
    return Operated(operation, arguments, attribute, shape)


def reduce(operation: str, x: Expression, axis: int | None) -> Expression:
    """`sum`, `max` or `min` over all entries or one axis."""
    if axis is not None:
        if not isinstance(axis, int | np.integer) or not -x.ndim <= axis < x.ndim:
            raise ModelError(f"{operation}: axis {axis!r} does not fit shape {x.shape}")
        axis = int(axis) % x.ndim
    return apply(operation, x, attribute=axis)


def power(x: Any, exponent: Any) -> Expression:
    """The power x ** exponent; a parameter as the exponent gives exp(exponent · log(x))."""
    if isinstance(exponent, Expression) and not isinstance(exponent, Constant):
        return apply("exp", apply("multiply", exponent, apply("log", x)))
    constant = as_expression(exponent)
    if not isinstance(constant, Constant) or constant.shape:
        raise ModelError(f"an exponent must be one number, got shape {constant.shape}")
    p = float(constant.value)
    return apply("power", x, attribute=int(p) if p.is_integer() else p)


def gather(x: Expression, rearrange: Any, label: str) -> Expression:
    """Rearrange the entries of x: `rearrange` maps the array of entry numbers to its new arrangement."""
    try:
        positions = np.asarray(rearrange(np.arange(x.size).reshape(x.shape)))
    except (IndexError, ValueError, TypeError) as error:
        raise ModelError(f"{label.format(_short(x))}: {error}") from None
    how = Gather(positions.reshape(-1), positions.shape, label.format(to_text(x, 90)))
    return apply("gather", x, attribute=how)


def join(parts: list[Expression], combine: Any, label: str) -> Expression:
    """Concatenate or stack: `combine` joins arrays of entry numbers as it should join the parts."""
    offsets = np.cumsum([0] + [p.size for p in parts])
    numbered = [np.arange(p.size).reshape(p.shape) + o for p, o in zip(parts, offsets, strict=False)]
    try:
        positions = combine(numbered)
    except ValueError as error:
        raise ModelError(f"{label}: {error}") from None
    shown = label + "([" + ", ".join(_short(p) for p in parts) + "])"
    return apply("gather", *parts, attribute=Gather(positions.reshape(-1), positions.shape, shown))


def stack(parts: list[Expression], axis: int = 0) -> Expression:
    """Join expressions of one shape along a new axis."""
    return join(parts, lambda numbered: np.stack(numbered, axis), "stack")


def _constraint(left: Expression, sense: str, right: Any) -> Any:
    from decigrad.expressions.constraint import Constraint

    return Constraint(left, sense, as_expression(right))


# ------------------------------------------------------------------------------------- walks over the graph


def topological(*roots: Expression) -> list[Expression]:
    """All nodes under the roots, arguments before users, each once. Iterative: depth is not limited."""
    order: list[Expression] = []
    seen: set[int] = set()
    pending: list[tuple[Expression, bool]] = [(r, False) for r in reversed(roots)]
    while pending:
        node, expanded = pending.pop()
        if expanded:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            pending.append((node, True))
            pending.extend((a, False) for a in reversed(node.arguments))
    return order


def evaluate(roots: list[Expression], values: dict[str, Any], xp: Any) -> list[Any]:
    """Values of the roots, with variables and parameters by name; shared nodes are computed once."""
    known: dict[int, Any] = {}
    for node in topological(*roots):
        if isinstance(node, Constant):
            known[id(node)] = xp.asarray(node.value, dtype=xp.result_type(float))  # as enabled in the trace
        elif isinstance(node, Variable | Parameter):
            known[id(node)] = values[node.name]
        else:
            arguments = (known[id(a)] for a in node.arguments)
            known[id(node)] = OPERATIONS[node.operation].evaluate(xp, node.attribute, *arguments)
    return [known[id(r)] for r in roots]


def parameters_of(*roots: Expression) -> dict[str, Parameter]:
    """The parameters under the roots, by name, in order of first appearance."""
    return {node.name: node for node in topological(*roots) if isinstance(node, Parameter)}


# ---------------------------------------------------------------------------------------------- messages


def to_text(expression: Expression, precedence: int = 0) -> str:
    """The expression as a line of Python-like text, in parentheses where it binds less than `precedence`."""
    from decigrad.expressions import printing

    return printing.to_text(expression, precedence)


def _short(expression: Expression, limit: int = 60) -> str:
    text = to_text(expression)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _index_text(index: Any) -> str:
    def one(item: Any) -> str:
        if isinstance(item, slice):
            ends = ["" if v is None else str(v) for v in (item.start, item.stop)]
            return ":".join(ends) + (f":{item.step}" if item.step is not None else "")
        if item is Ellipsis:
            return "..."
        if isinstance(item, np.ndarray | list) and np.size(item) > 4:
            return f"<{np.size(item)} indices>"
        return str(item.tolist() if isinstance(item, np.ndarray) else item)

    return ", ".join(one(i) for i in index) if isinstance(index, tuple) else one(index)
