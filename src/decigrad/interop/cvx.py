"""CVXPY problems as models, their parameters kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from decigrad.errors import ModelError, UnsupportedModelError
from decigrad.expressions import functions as dm
from decigrad.model import Model
from decigrad.program import Array

__all__ = ["from_cvxpy"]


def from_cvxpy(problem: Any, name: str = "model") -> Model:
    """A linear, convex quadratic or mixed-integer linear CVXPY problem as a model, its parameters kept.

    CVXPY reduces the problem to matrices that are affine in its parameters, and these are stated. Variables
    and parameters keep their names and shapes; those that the reduction adds follow as "auxiliary0", ….
    Constraints are two vectors, "zero" and "nonneg", in CVXPY's order.

    Arguments:
        problem: a `cvxpy.Problem` of CVXPY 1.4 or later that follows its DPP rules.
        name: of the model.

    Raises:
        ModelError: not DCP, or not DPP; a variable or parameter is symmetric, semidefinite, diagonal, sparse,
            complex or integer in some entries only; two of one name.
        UnsupportedModelError: it needs a second-order, exponential, power or semidefinite cone.

    Example: `layer = dg.DecisionLayer(dg.from_cvxpy(problem))`, then `layer({"A": A, "b": b})["x"]`.

    Source: A. Agrawal et al., "Differentiable convex optimization layers", NeurIPS 2019 (the reduction).
    """
    program, whole = _reduced(problem)
    model = Model(name)
    theta = _parameters(model, problem, program)
    columns = _variables(model, problem, program, whole, theta)
    n = program.x.size
    goal = _Affine(program.q, theta)
    objective = goal.rows(np.arange(n)) @ columns + goal.rows(np.array([n]))[0]
    if program.P is not None:
        objective = objective + _curvature(program.P, n, theta, columns)
    if type(problem.objective).__name__ == "Maximize":
        model.maximize(-objective)
    else:
        model.minimize(objective)
    rows = program.A.shape[0] // (n + 1)
    zero = program.cone_dims.zero
    A = _Affine(program.A, theta)
    for group, index in (("zero", np.arange(zero)), ("nonneg", np.arange(zero, rows))):
        if len(index):
            left = A.product(index, rows, columns) + A.rows(n * rows + index)
            model.subject_to(left == 0.0 if group == "zero" else left >= 0.0, group)
    return model


def _reduced(problem: Any) -> tuple[Any, dict[str, set[int]]]:
    """What CVXPY makes of the problem, and the columns that are 0 or 1 ("bool") and integers ("int")."""
    import cvxpy

    if not isinstance(problem, cvxpy.Problem):
        raise ModelError(f"from_cvxpy takes a cvxpy.Problem, got {type(problem).__name__}")
    if not problem.is_dcp():
        raise ModelError("from_cvxpy: the problem does not follow CVXPY's DCP rules")
    if not problem.is_dpp():
        raise ModelError(
            "from_cvxpy: its parameters enter in a way that CVXPY's DPP rules refuse; state the model in "
            "decigrad, where parameters may enter anywhere"
        )
    try:
        data = problem.get_problem_data(cvxpy.HIGHS)[0]
    except cvxpy.error.SolverError as error:
        raise UnsupportedModelError(
            f"from_cvxpy: the problem is not a linear, quadratic or mixed-integer linear program ({error}); "
            f"second-order, exponential, power and semidefinite cones are not supported yet"
        ) from error
    return data["param_prob"], {k: set(data[f"{k}_vars_idx"]) for k in ("bool", "int")}


def _parameters(model: Model, problem: Any, program: Any) -> Any:
    """States the parameters; all their entries as one vector in CVXPY's order, or None."""
    own = {p.id: p for p in problem.parameters()}
    parts = []
    for key, _ in sorted(program.param_id_to_col.items(), key=lambda item: item[1]):
        if key == -1:  # the constant
            continue
        if key not in own:
            kinds = [p.name() for p in own.values() if p.id not in program.param_id_to_col]
            raise ModelError(
                f"from_cvxpy: parameter {kinds[0]!r} is symmetric, semidefinite, diagonal or sparse"
            )
        p = own[key]
        value = None if p.value is None else np.asarray(p.value, float)
        parameter = model.parameter(p.name(), value=value, shape=p.shape, nonneg=bool(p.is_nonneg()))
        parts.append(_flat(parameter, p.shape))
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else dm.concatenate(parts)


def _variables(model: Model, problem: Any, program: Any, whole: dict[str, set[int]], theta: Any) -> Any:
    """States the variables; all their entries as one vector in the order of the columns."""
    own = {v.id: v for v in problem.variables()}
    known = {v.id: v for v in program.variables}
    sides = []
    for tensor, values, none in (
        (program.lb_tensor, program.lower_bounds, -np.inf),
        (program.ub_tensor, program.upper_bounds, np.inf),
    ):
        sides.append(_Bounds(tensor, values, none, program.x.size, theta))
    parts, extra = [], 0
    for key, start in sorted(program.var_id_to_col.items(), key=lambda item: item[1]):
        variable, span = known[key], np.arange(start, start + known[key].size)
        shape = variable.shape
        if key in own:
            name = own[key].name()
            if shape != own[key].shape or own[key].is_complex():
                raise ModelError(
                    f"from_cvxpy: variable {name!r} is symmetric, semidefinite, diagonal, sparse or complex"
                )
        else:
            name, extra = f"auxiliary{extra}", extra + 1
        counts = {kind: sum(int(j) in columns for j in span) for kind, columns in whole.items()}
        if any(0 < count < len(span) for count in counts.values()):
            raise ModelError(f"from_cvxpy: variable {name!r} is integer in some entries only: make two of it")
        if counts["bool"]:
            parts.append(_flat(model.binary(name, shape=shape), shape))
            continue
        low, high = (_shaped(side.rows(span), shape) for side in sides)
        state = model.integer if counts["int"] else model.continuous
        parts.append(_flat(state(name, shape=shape, lb=low, ub=high), shape))
    return parts[0] if len(parts) == 1 else dm.concatenate(parts)


def _flat(x: Any, shape: tuple[int, ...]) -> Any:
    """The entries of x as a vector, column by column, as CVXPY has them."""
    if len(shape) > 2:
        raise ModelError(f"from_cvxpy: {x!s} has more than two axes")
    return dm.reshape(dm.transpose(x) if len(shape) == 2 else x, (int(np.prod(shape, dtype=int)),))


def _shaped(flat: Any, shape: tuple[int, ...]) -> Any:
    """A vector that is stored column by column in its shape."""
    return dm.transpose(dm.reshape(flat, shape[::-1])) if len(shape) == 2 else dm.reshape(flat, shape)


class _Affine:
    """An array whose entries are affine in the parameters: T θ + t, from CVXPY's tensor [entries, (θ, 1)]."""

    def __init__(self, tensor: Any, theta: Any) -> None:
        self.tensor, self.theta = tensor.tocsr(), theta

    def rows(self, index: np.ndarray) -> Any:
        """The entries `index`."""
        part = self.tensor[index]
        constant = _dense(part[:, [-1]])[:, 0]
        return constant if part[:, :-1].nnz == 0 else _dense(part[:, :-1]) @ self.theta + constant

    def product(self, index: np.ndarray, rows: int, x: Any) -> Any:
        """The rows `index` of a matrix [rows, n], which is stored by columns, times x."""
        places = (
            index[None, :] + rows * np.arange(x.size)[:, None]
        ).ravel()  # of entry [j, i] of the transpose
        part = self.tensor[places]
        constant = _dense(part[:, [-1]]).reshape(x.size, len(index)).T
        moving = part[:, :-1].tocoo()
        total = constant @ x
        if moving.nnz:
            column, row = np.divmod(moving.row, len(index))
            spread = (np.arange(len(index))[:, None] == row).astype(float) * moving.data
            total = total + spread @ (self.theta[moving.col] * x[column])
        return total


class _Bounds(_Affine):
    """Bounds of the variables, some of which may be affine in the parameters."""

    def __init__(self, tensor: Any, values: Any, none: float, n: int, theta: Any) -> None:
        from scipy import sparse

        if tensor is None:
            constant = np.full(n, none) if values is None else np.asarray(values, float)
            tensor = sparse.csr_array(constant[:, None])
        super().__init__(tensor, theta)


def _curvature(tensor: Any, n: int, theta: Any, x: Any) -> Any:
    """½xᵀPx, P affine in the parameters."""
    part = tensor.tocsr()
    constant = _dense(part[:, [-1]]).reshape(n, n)
    total = 0.5 * dm.quad_form(x, 0.5 * (constant + constant.T)) if constant.any() else 0.0
    moving = part[:, :-1].tocoo()
    if moving.nnz:
        i, j = np.divmod(moving.row, n)
        total = total + dm.sum(0.5 * moving.data * theta[moving.col] * x[i] * x[j])
    return total


def _dense(matrix: Any) -> Array:
    return np.asarray(matrix.toarray(), float)
