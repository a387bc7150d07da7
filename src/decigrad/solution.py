"""What a solve returns: decisions, multipliers, status, and derivatives on demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from decigrad import compiled, kkt
from decigrad.canonical import CanonicalForm
from decigrad.errors import ModelError
from decigrad.expressions.expression import Parameter
from decigrad.gradients import implicit
from decigrad.gradients.implicit import Coupling, Gradient
from decigrad.gradients.methods import KKT
from decigrad.program import QuadraticProgram, RawResult, Solver, Status


@dataclass
class Solution:
    """The solution of one model at one set of parameter values.

    Attributes:
        x: decisions by variable name, shaped; NaN when the solve failed.
        objective: value of the user's own objective (of the maximum under `maximize`).
        duals: multipliers by constraint name, shaped like the constraint, and "NAME.lb" / "NAME.ub" for
            the bounds of variable NAME. They belong to the minimization form (−f under `maximize`) with
            the Lagrangian f + yᵀ(left − right) for equalities and inequality multipliers ≥ 0, whichever
            way the inequality is written. For an infeasible model: the Farkas certificate. Empty where the
            solver is an oracle, which has none.
        status: a `Status`.
        stats: solver and the reason for it, iterations, seconds; `handed_on` (the solver gave up, and the
            answer is that of its second, see `Solver`); `kinks` (constraints active with a zero
            multiplier) and `singular` (a tie or dependent active constraints) after a sensitivity.
        ray: for an unbounded model, the direction of descent, by variable name.
        conflict: for an infeasible model, a minimal set of constraints that clash, in words.
    """

    x: dict[str, np.ndarray]
    objective: float
    duals: dict[str, np.ndarray]
    status: Status
    stats: dict[str, Any]
    ray: dict[str, np.ndarray] | None = None
    conflict: list[str] = field(default_factory=list)
    _form: CanonicalForm = field(repr=False, default=None)  # type: ignore[assignment]
    _values: dict[str, np.ndarray] = field(repr=False, default_factory=dict)
    _program: QuadraticProgram = field(repr=False, default=None)  # type: ignore[assignment]
    _raw: RawResult = field(repr=False, default=None)  # type: ignore[assignment]
    _solver: Solver = field(repr=False, default=None)  # type: ignore[assignment]
    _sense: float = field(repr=False, default=1.0)
    _jacobian: np.ndarray | None = field(repr=False, default=None)

    @property
    def _l3_failed(self) -> bool:
        """True when no derivative exists because the solve failed; kept for the tutorial's spelling."""
        return self.status != Status.OPTIMAL

    def gradient(self, parameter: Parameter | str) -> np.ndarray:
        """Derivative of the optimal value in a parameter, d objective*/dp (L1), by the envelope theorem.

        Equals ∂L/∂p at the solution: for a cost vector it is x*. Shaped like the parameter, with the
        sign of the user's own objective.

        Raises:
            ModelError: the solve failed; or the parameter enters constraints and the solver is an oracle.
        """
        name = self._name(parameter)
        implicit.refuse(self._solver, self._entered([name]) - {"q"}, [name])
        return self._sense * compiled.envelope(self._form, self._values, self._single())[name]

    def sensitivity_matrix(self, parameter: Parameter | str | None = None) -> np.ndarray:
        """Derivative of the decision, dx*/dp (L3), [num variables, num parameter entries].

        Rows: variables in order of declaration, C order within each. Columns: entries of `parameter`, or
        of all parameters in order of declaration. Exact at any active set; zero where a vertex does not
        move; at kinks see `decigrad.gradients.implicit`.

        Raises:
            ModelError: as in `gradient`; or the solver is an oracle whose decisions are not vertices.
        """
        names = [*self._form.parameters] if parameter is None else [self._name(parameter)]
        implicit.refuse(self._solver, self._entered(names), names)
        matrix = self._sensitivity()
        if parameter is None:
            return matrix
        name, start = self._name(parameter), 0
        for other, p in self._form.parameters.items():
            if other == name:
                return matrix[:, start : start + p.size]
            start += p.size
        raise AssertionError(name)

    def implicit_gradient(self, parameter: Parameter | str) -> np.ndarray:
        """d objective*/dp by the chain rule through dx*/dp: ∂f/∂p + (dx*/dp)ᵀ ∂f/∂x.

        Equals `gradient` at regular points; sign of the user's own objective.
        """
        name = self._name(parameter)
        in_x, in_parameters = compiled.objective_gradient(self._form, self._values, self._single().x)
        through = self.sensitivity_matrix(name).T @ in_x[: self._form.num_user]
        if self._form.n > self._form.num_user:  # the value of piecewise-linear terms moves as well
            return self.gradient(name)
        return self._sense * (in_parameters[name] + through.reshape(in_parameters[name].shape))

    def _single(self) -> RawResult:
        self._require_optimal()
        return RawResult(*(leaf[0] for leaf in _fields(self._raw)))

    def _sensitivity(self) -> np.ndarray:
        if self._jacobian is None:
            gradient: Gradient = KKT()
            raw = self._single()
            coupling = gradient.coupling(self._program, self._raw)
            single = Coupling(coupling.rows[0], coupling.bounds[0], coupling.upper[0])
            by_name = compiled.residual_jacobian(self._form, gradient, self._values, single, raw)
            columns = [by_name[name].reshape(by_name[name].shape[0], -1) for name in self._form.parameters]
            rows = 2 * self._form.n + raw.y.size + raw.z.size
            change = np.concatenate(columns, axis=1) if columns else np.zeros((rows, 0))
            moved, singular = kkt.solve(self._program, coupling.rows, coupling.bounds, -change[None])
            self.stats["singular"] = bool(np.asarray(singular)[0])
            self.stats["kinks"] = int(count_kinks(self._program, self._raw)[0])
            self._jacobian = np.ascontiguousarray(moved[0, : self._form.num_user])
        return self._jacobian

    def _entered(self, names: list[str]) -> set[str]:
        """The parts of the program that parameters enter."""
        self._require_optimal()
        return {part for part in compiled.PARTS if self._form.depends(part) & set(names)}

    def _name(self, parameter: Parameter | str) -> str:
        name = parameter if isinstance(parameter, str) else parameter.name
        if name not in self._form.parameters:
            raise ModelError(
                f"the model has no parameter {name!r}; it has {', '.join(self._form.parameters)}"
            )
        return name

    def _require_optimal(self) -> None:
        if self.status != Status.OPTIMAL:
            raise ModelError(f"no derivative: the solve ended with {self.status.name} ({self.status.advice})")


def _fields(raw: RawResult) -> tuple[Any, ...]:
    return raw.x, raw.y, raw.z, raw.w, raw.active, raw.fixed, raw.status, raw.iterations


@dataclass
class Solutions:
    """The solutions of a batch.

    Attributes:
        x: decisions by variable name, [*batch, *shape]; NaN in failed samples.
        objective: value of the user's own objective, [*batch].
        duals: multipliers by constraint name, [*batch, *shape]; empty for an oracle (see `Solution.duals`).
        status: `Status` by sample, int [*batch].
        stats: solver and the reason for it, iterations by sample, seconds in all, `kinks` by sample,
            and which samples the solver gave up on and `handed_on` to a second one.
    """

    x: dict[str, np.ndarray]
    objective: np.ndarray
    duals: dict[str, np.ndarray]
    status: np.ndarray
    stats: dict[str, Any]
    program: QuadraticProgram = field(repr=False)
    raw: RawResult = field(repr=False)
    gradient: Any = field(repr=False)
    noise: Any = field(default=None, repr=False)
    """Of an estimated gradient: z, and the decisions that the forward value is the mean of."""

    @property
    def ok(self) -> np.ndarray:
        """True where the sample was solved to optimality, bool [*batch]."""
        return self.status == Status.OPTIMAL

    @property
    def failed(self) -> np.ndarray:
        """Flat indices of the samples that were not."""
        return np.flatnonzero(~self.ok.reshape(-1))

    def adjoint(self, cotangent: Any, form: CanonicalForm) -> np.ndarray:
        """λ = K⁻¹(x̄, 0, 0, 0) by sample for the cotangent x̄ of the decisions (dict like `x`), [B, N].

        The pullback to the program's data is −λᵀ ∂R/∂θ with the residual R of `gradients.implicit`.
        """
        return implicit.adjoint(self.program, self.gradient, self.raw, self.flat(cotangent, form))

    def flat(self, cotangent: Any, form: CanonicalForm) -> np.ndarray:
        """A dict like `x` as one array [B, n]."""
        flat = np.zeros((self.raw.x.shape[0], form.n))
        for name, start in form.offsets.items():
            part = np.asarray(cotangent[name], np.float64).reshape(flat.shape[0], -1)
            flat[:, start : start + part.shape[1]] = part
        return flat


def count_kinks(program: QuadraticProgram, raw: RawResult, tolerance: float = 1e-9) -> np.ndarray:
    """Constraints of each sample that hold with equality although their multiplier is zero, [B]."""
    x = np.nan_to_num(raw.x)
    slack = np.abs(program.h - program.G.matvec(x))
    touching = (slack <= tolerance * (1.0 + np.abs(program.h))) & ~raw.active
    gaps = [np.where(np.isfinite(b), np.abs(b - x), np.inf) for b in (program.lb, program.ub)]
    bounds = (np.minimum(*gaps) <= tolerance * (1.0 + np.abs(x))) & (raw.fixed == 0)
    return touching.sum(-1) + bounds.sum(-1)
