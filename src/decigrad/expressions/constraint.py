"""Constraints: two expressions and a sense, elementwise over their common shape."""

from __future__ import annotations

import numpy as np

from decigrad.errors import ModelError
from decigrad.expressions.expression import Expression
from decigrad.expressions.operations import Shape
from decigrad.expressions.printing import to_latex, to_text


class Constraint:
    """left <= right, left >= right or left == right, entry by entry; `name` labels its multipliers."""

    def __init__(self, left: Expression, sense: str, right: Expression, name: str | None = None) -> None:
        self.left, self.sense, self.right, self.name = left, sense, right, name
        try:
            self.shape: Shape = np.broadcast_shapes(left.shape, right.shape)
        except ValueError:
            raise ModelError(
                f"constraint {to_text(left)} {sense} {to_text(right)}: "
                f"shapes {left.shape} and {right.shape} do not fit"
            ) from None

    def named(self, name: str) -> Constraint:
        """The same constraint under a name."""
        return Constraint(self.left, self.sense, self.right, name)

    def __bool__(self) -> bool:
        raise ModelError(
            f"the constraint {self} has no truth value; a chain such as `0 <= x <= 1` must be two constraints"
        )

    def __str__(self) -> str:
        return f"{to_text(self.left)} {self.sense} {to_text(self.right)}"

    def __repr__(self) -> str:
        return f"<Constraint {self.name or ''}{': ' if self.name else ''}{self}>"

    def _repr_latex_(self) -> str:
        return f"${self.to_latex()}$"

    def to_latex(self) -> str:
        """The constraint in LaTeX, without dollar signs."""
        sense = {"<=": r"\le", ">=": r"\ge", "==": "="}[self.sense]
        return f"{to_latex(self.left)} {sense} {to_latex(self.right)}"
