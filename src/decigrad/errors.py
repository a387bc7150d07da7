"""Errors that a user can act on: each names the offender and the fix."""

from __future__ import annotations

from typing import Any


class ModelError(ValueError):
    """The model, its parameters or its data are stated wrongly."""


class UnsupportedModelError(ModelError):
    """The model is valid but outside what the solvers at hand can take; names the term and the constraint."""


class NonConvexError(UnsupportedModelError):
    """The quadratic objective has a negative eigenvalue (`eigenvalue`, with its `eigenvector`)."""

    def __init__(self, message: str, eigenvalue: float, eigenvector: Any = None) -> None:
        super().__init__(message)
        self.eigenvalue = eigenvalue
        self.eigenvector = eigenvector

    def __reduce__(self) -> Any:
        return type(self), (self.args[0], self.eigenvalue, self.eigenvector), self.__dict__


class SolveError(RuntimeError):
    """A solve ended without an optimal solution. `solution` holds status, certificate and statistics.

    One that ends a `fit` has the best predictor until then in `result`, a `FitResult`.
    """

    def __init__(self, message: str, solution: Any = None) -> None:
        super().__init__(message)
        self.solution = solution
        self.result: Any = None


class InfeasibleError(SolveError):
    """No point satisfies the constraints; the message names a small set of constraints that clash."""


class UnboundedError(SolveError):
    """The objective falls without limit; the message names the variables that run away."""
