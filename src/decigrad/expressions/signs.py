"""Which parameter-only expressions are known never to be negative.

Needed where a coefficient multiplies a convex piecewise-linear term: the product is convex only for a
coefficient ≥ 0, which a parameter must declare (`nonneg=True`) or the expression must show (exp, squares).
"""

from __future__ import annotations

from decigrad.expressions.expression import Constant, Expression, Parameter, topological

_ALWAYS = {"exp", "abs", "sqrt", "norm", "cosh"}
_KEEPS_SIGN = {
    "add",
    "multiply",
    "divide",
    "matmul",
    "sum",
    "max",
    "min",
    "gather",
    "minimum",
    "sinh",
    "tanh",
    "expm1",
}


def sign(expression: Expression) -> int | None:
    """+1 if known ≥ 0 everywhere, −1 if known ≤ 0, None if unknown (0 counts as +1)."""
    signs: dict[int, int | None] = {}
    for node in topological(expression):
        signs[id(node)] = _node_sign(node, [signs[id(a)] for a in node.arguments])
    return signs[id(expression)]


def _node_sign(node: Expression, arguments: list[int | None]) -> int | None:
    if isinstance(node, Constant):
        return 1 if (node.value >= 0).all() else -1 if (node.value <= 0).all() else None
    if isinstance(node, Parameter):
        return 1 if node.nonneg else None
    name = node.operation
    if name in _ALWAYS or (name == "power" and isinstance(node.attribute, int) and node.attribute % 2 == 0):
        return 1
    if name == "negative":
        return None if arguments[0] is None else -arguments[0]
    if name == "maximum":
        return 1 if 1 in arguments else (-1 if all(s == -1 for s in arguments) else None)
    if name == "multiply" and node.arguments[0] is node.arguments[1]:
        return 1
    if None in arguments or name not in _KEEPS_SIGN | {"power"}:
        return None
    if name in ("multiply", "divide", "matmul"):
        return arguments[0] * arguments[1]  # type: ignore[operator]
    if name == "power":
        return 1 if arguments[0] == 1 else None
    return arguments[0] if len(set(arguments)) == 1 else None
