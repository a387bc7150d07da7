"""Whether parameter-only expressions are affine in some of their parameters, by structure: at every value."""

from __future__ import annotations

from collections.abc import Iterable

from decigrad.expressions.expression import Constant, Expression, Parameter, topological

_KEEPS_DEGREE = {"add", "negative", "sum", "gather"}


def is_affine(roots: Iterable[Expression], names: Iterable[str]) -> bool:
    """Whether all roots are affine in the parameters `names`; the others count as constants.

    Nothing is simplified: c * c / c is not affine.
    """
    of, degrees = set(names), dict[int, float]()
    for node in topological(*roots):
        degrees[id(node)] = _degree(node, of, [degrees[id(a)] for a in node.arguments])
    return all(degree <= 1 for degree in degrees.values())


def _degree(node: Expression, names: set[str], arguments: list[float]) -> float:
    if isinstance(node, Constant):
        return 0
    if isinstance(node, Parameter):
        return int(node.name in names)
    if not any(arguments):
        return 0
    name = node.operation
    if name in _KEEPS_DEGREE or (name == "divide" and arguments[1] == 0):
        return max(arguments)
    if name in ("multiply", "matmul"):
        return sum(arguments)
    return arguments[0] if name == "power" and node.attribute == 1 else float("inf")
