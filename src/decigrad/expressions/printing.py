"""Expressions as text and as LaTeX."""

from __future__ import annotations

from collections.abc import Callable

from decigrad.expressions.expression import Constant, Expression, topological
from decigrad.expressions.operations import OPERATIONS


def _number(value: float) -> str:
    return f"{value:g}"


def _leaf_text(node: Expression) -> str:
    if isinstance(node, Constant):
        if node.ndim == 0:
            return _number(float(node.value))
        if node.size and (node.value == node.value.flat[0]).all():
            return _number(float(node.value.flat[0]))
        return "[" + "×".join(map(str, node.shape)) + " constant]"
    return node.name  # type: ignore[attr-defined]


def _render(root: Expression, style: str, precedence: int, leaf: Callable[[Expression], str]) -> str:
    rendered: dict[int, tuple[str, int]] = {}
    for node in topological(root):
        if not node.arguments:
            text = leaf(node)
            rendered[id(node)] = (text, 20 if text.startswith("-") else 100)
            continue
        rule = OPERATIONS[node.operation]
        call = rule.precedence == 100
        parts = []
        for position, argument in enumerate(node.arguments):
            text, rank = rendered[id(argument)]
            needs = rank < rule.precedence or (
                rank == rule.precedence and position > 0 and node.operation != "add"
            )
            parts.append(f"({text})" if needs and not call else text)
        if node.operation == "add" and parts[1].startswith("-"):
            text = f"{parts[0]} - {parts[1][1:]}"
        else:
            label = node.attribute.label if node.operation == "gather" else ""
            if style == "latex":
                label = rf"\mathtt{{{label}}}".replace("_", r"\_")
            text = getattr(rule, style).format(*parts, p=node.attribute, label=label)
            if node.operation in ("sum", "max", "min") and node.attribute is not None and style == "text":
                text = text[:-1] + f", axis={node.attribute})"
        rendered[id(node)] = (text, rule.precedence)
    text, rank = rendered[id(root)]
    return f"({text})" if rank < precedence else text


def to_text(expression: Expression, precedence: int = 0) -> str:
    """The expression as a line of Python-like text."""
    return _render(expression, "text", precedence, _leaf_text)


def to_latex(expression: Expression) -> str:
    """The expression in LaTeX, without dollar signs."""

    def leaf(node: Expression) -> str:
        text = _leaf_text(node)
        if isinstance(node, Constant):
            return text.replace("×", r"\times ")
        head, _, tail = text.partition("_")
        name = head if len(head) == 1 else rf"\mathrm{{{head}}}"
        return f"{name}_{{\\mathrm{{{tail.replace('_', ' ')}}}}}" if tail else name

    return _render(expression, "latex", 0, leaf)
