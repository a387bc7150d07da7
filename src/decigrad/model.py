"""The model: variables, parameters, an objective and constraints, stated algebraically."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from decigrad import compiled, display
from decigrad.canonical import CanonicalForm, canonicalize, check_convex
from decigrad.errors import ModelError
from decigrad.expressions.constraint import Constraint
from decigrad.expressions.expression import (
    Constant,
    Expression,
    Parameter,
    Variable,
    as_expression,
    parameters_of,
    topological,
)
from decigrad.program import QuadraticProgram, RawResult, Solver, Status, gives_multipliers
from decigrad.solution import Solution
from decigrad.solving import cause, explain, failure, resolve, run

_FORMS: OrderedDict[Any, CanonicalForm] = OrderedDict()
_FORMS_KEPT = 256


class Model:
    """An optimization model with parameters.

    >>> import decigrad as dg
    >>> m = dg.Model("allocation")
    >>> x = m.continuous("x", shape=3, lb=0.0, ub=1.0)
    >>> c = m.parameter("cost", shape=3)
    >>> m.minimize(dg.sum(c * x) + dg.sum(x * x))
    >>> m.subject_to(dg.sum(x) == 1.0)
    >>> m.solve({"cost": [0.8, 1.0, 1.2]}).x["x"].round(4)
    array([0.4333, 0.3333, 0.2333])
    """

    def __init__(self, name: str = "model") -> None:
        self.name = name
        self.variables: dict[str, Variable] = {}
        self.parameters: dict[str, Parameter] = {}
        self.constraints: list[Constraint] = []
        self.objective: Expression | None = None
        self.sense: str = "minimize"
        self._form: CanonicalForm | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What is stated. Equal models share their form, with its compiled functions: a copy looks it up."""
        return {**self.__dict__, "_form": None}

    # ------------------------------------------------------------------------------------------ stating

    def continuous(self, name: str, shape: Any = (), lb: Any = -np.inf, ub: Any = np.inf) -> Variable:
        """A real decision variable; `lb`, `ub` are numbers, arrays or expressions in parameters."""
        return self._variable(name, shape, lb, ub, "continuous")

    def integer(self, name: str, shape: Any = (), lb: Any = -np.inf, ub: Any = np.inf) -> Variable:
        """An integer decision variable."""
        return self._variable(name, shape, lb, ub, "integer")

    def binary(self, name: str, shape: Any = ()) -> Variable:
        """A decision variable that is 0 or 1."""
        return self._variable(name, shape, 0.0, 1.0, "binary")

    def parameter(
        self, name: str, value: Any = None, shape: Any = None, *, known: bool = False, nonneg: bool = False
    ) -> Parameter:
        """A number or array given at solve time.

        Args:
            name: the key under which values are given.
            value: a first value; its shape is the parameter's shape unless `shape` is given.
            shape: an int or tuple; without value and shape the parameter is a scalar.
            known: it is given when the decision is made and not predicted (today's capacity).
            nonneg: it is never negative (checked), so that it may scale convex terms such as `abs`.
        """
        self._fresh(name)
        if shape is None:
            shape = () if value is None else np.shape(value)
        parameter = Parameter(name, _shape(shape, name), None, known, nonneg)
        if value is not None:
            parameter.value = value
        self.parameters[name] = parameter
        self._form = None
        return parameter

    def minimize(self, objective: Any) -> None:
        """State the objective, to be minimized."""
        self._state_objective(objective, "minimize")

    def maximize(self, objective: Any) -> None:
        """State the objective, to be maximized."""
        self._state_objective(objective, "maximize")

    def subject_to(self, constraints: Any, name: str | None = None) -> None:
        """Add a constraint, or an iterable of them; a name labels the multipliers (default: c0, c1, …)."""
        if isinstance(constraints, Constraint):
            label = name or constraints.name or f"c{len(self.constraints)}"
            if any(c.name == label for c in self.constraints):
                raise ModelError(f"a constraint named {label!r} exists already")
            self._own(f"constraint {label!r}", constraints.left, constraints.right)
            self.constraints.append(constraints.named(label))
            self._form = None
        elif isinstance(constraints, bool | np.bool_):
            raise ModelError("subject_to got True/False: the comparison held no variable, or was chained")
        elif isinstance(constraints, Iterable):
            for number, constraint in enumerate(constraints):
                self.subject_to(constraint, f"{name}[{number}]" if name else None)
        else:
            raise ModelError(f"subject_to needs constraints, got {type(constraints).__name__}")

    def constrained_by(self) -> frozenset[str]:
        """Parameters in stated constraints and bounds: what is feasible depends on them."""
        stated = [side for c in self.constraints for side in (c.left, c.right)]
        bounds = [bound for v in self.variables.values() for bound in (v.lb, v.ub)]
        return frozenset(parameters_of(*stated, *bounds))

    def _variable(self, name: str, shape: Any, lb: Any, ub: Any, kind: str) -> Variable:
        self._fresh(name)
        shape = _shape(shape, name)
        low, high = as_expression(lb), as_expression(ub)
        _check_bounds(name, shape, low, high)
        variable = Variable(name, shape, low, high, kind)
        self.variables[name] = variable
        self._form = None
        return variable

    def _fresh(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise ModelError(f"a name must be a non-empty string, got {name!r}")
        if name in self.variables or name in self.parameters:
            raise ModelError(f"the name {name!r} is taken in model {self.name!r}")

    def _state_objective(self, objective: Any, sense: str) -> None:
        objective = as_expression(objective)
        if objective.size != 1:
            raise ModelError(f"the objective must be one number, got shape {objective.shape}; use sum()")
        self._own("the objective", objective)
        self.objective = objective.reshape(()) if objective.shape else objective
        self.sense = sense
        self._form = None

    def _own(self, place: str, *expressions: Expression) -> None:
        for node in topological(*expressions):
            if isinstance(node, Variable | Parameter):
                mine = self.variables.get(node.name, self.parameters.get(node.name))
                if mine is not node:
                    raise ModelError(f"{place} uses {node.name!r}, which belongs to another model")

    @classmethod
    def restored(
        cls,
        name: str,
        variables: dict[str, Variable],
        parameters: dict[str, Parameter],
        constraints: list[Constraint],
        objective: Expression | None,
        sense: str,
    ) -> Model:
        """The model of parts that were stated before, as an archive holds them.

        Raises:
            ModelError: parts that do not belong together.
        """
        model = cls(name)
        model.variables, model.parameters, model.constraints = variables, parameters, constraints
        names = {**{k: v.name for k, v in variables.items()}, **{k: p.name for k, p in parameters.items()}}
        for key, own in names.items():
            if key != own or (key in variables and key in parameters):
                raise ModelError(f"the name {key!r} does not belong to one variable or parameter")
        for v in variables.values():
            if v.kind not in ("continuous", "integer", "binary"):
                raise ModelError(f"variable {v.name!r} is of unknown kind {v.kind!r}")
            _check_bounds(v.name, _shape(v.shape, v.name), v.lb, v.ub)
        labels = [c.name for c in constraints]
        if None in labels or len(set(labels)) < len(labels):
            raise ModelError("constraints need names of their own")
        if wrong := [c.sense for c in constraints if c.sense not in ("<=", ">=", "==")]:
            raise ModelError(f"a constraint has no sense {wrong[0]!r}")
        bounds = [bound for v in variables.values() for bound in (v.lb, v.ub)]
        model._own("the model", *bounds, *(side for c in constraints for side in (c.left, c.right)))
        if objective is not None:
            if sense not in ("minimize", "maximize"):
                raise ModelError(f"a model minimizes or maximizes, not {sense!r}")
            model._state_objective(objective, sense)
        return model

    # ------------------------------------------------------------------------------------------ solving

    @property
    def form(self) -> CanonicalForm:
        """The canonical form. Models of equal structure share one, with its compiled functions."""
        if self.objective is None:
            raise ModelError(f"model {self.name!r} has no objective; call minimize or maximize")
        if not self.variables:
            raise ModelError(f"model {self.name!r} has no variables")
        if self._form is None:
            key = self.structure()
            if key not in _FORMS:
                goal = self.objective if self.sense == "minimize" else -self.objective
                _FORMS[key] = canonicalize(
                    dict(self.variables), dict(self.parameters), goal, self.constraints
                )
                if len(_FORMS) > _FORMS_KEPT:
                    _FORMS.popitem(last=False)
            self._form = _FORMS[key]
        return self._form

    def structure(self) -> Any:
        """A hashable key: everything about the model but parameter values."""
        assert self.objective is not None
        roots = [self.objective]
        for c in self.constraints:
            roots += [c.left, c.right]
        bounds = [b for v in self.variables.values() for b in (v.lb, v.ub)]
        nodes = topological(*roots, *bounds)
        number = {id(node): i for i, node in enumerate(nodes)}
        described = tuple(_described(node, number) for node in nodes)
        constraints = tuple((c.sense, c.name) for c in self.constraints)
        variables = tuple((v.name, v.shape, v.kind) for v in self.variables.values())
        parameters = tuple((p.name, p.shape, p.nonneg) for p in self.parameters.values())
        order = tuple(number[id(r)] for r in [*roots, *bounds])
        return described, constraints, variables, parameters, order, self.sense

    def values(self, params: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
        """All parameter values: those given, completed by each parameter's own `.value`.

        Raises:
            ModelError: unknown name, wrong shape, NaN or infinite entries, or a value that is missing.
        """
        given = dict(params or {})
        self.check_names(given)
        found = {}
        for name, parameter in self.parameters.items():
            if name in given:
                found[name] = parameter.validated(given[name])
            elif parameter.value is not None:
                found[name] = parameter.value
            else:
                raise ModelError(
                    f"parameter {name!r} has no value: pass it to solve({{{name!r}: ...}}) or set its .value"
                )
        return found

    def check_names(self, given: Iterable[str]) -> None:
        """Refuse names that are not parameters of this model."""
        for name in given:
            if name not in self.parameters:
                near = _nearest(str(name), self.parameters)
                raise ModelError(f"model {self.name!r} has no parameter {name!r}{near}")

    def solve(
        self,
        params: Mapping[str, Any] | None = None,
        *,
        solver: str | Solver = "auto",
        throw: bool = True,
        time_limit: float | None = None,
        max_iterations: int | None = None,
    ) -> Solution:
        """Solve the model at one set of parameter values.

        Args:
            params: values by parameter name; missing ones are taken from `.value`.
            solver: "auto", "active-set", "daqp", "highs", "interior-point", "scip", or an object.
            throw: raise when the solve does not end optimal; else the solution carries the status.
            time_limit: seconds, for solvers that take one.
            max_iterations: for solvers that take one.

        Raises:
            ModelError: parameters missing, unknown or of wrong shape.
            UnsupportedModelError, NonConvexError: the model is outside what can be solved.
            InfeasibleError, UnboundedError, SolveError: with `throw`; `.solution` has the certificate.
        """
        values = self.values(params)
        form = self.form
        start = time.perf_counter()
        program = compiled.programs(form, values, frozenset())
        chosen, why = resolve(solver, program, time_limit, max_iterations)
        if form.depends("P"):
            check_convex(jax.tree_util.tree_map(lambda leaf: leaf[0], program.P))
        raw, handed_on = run(form, chosen, program)
        seconds = time.perf_counter() - start
        solution = self._solution(form, values, program, raw, chosen, why, seconds)
        solution.stats["handed_on"] = bool(handed_on[0])
        if throw and solution.status != Status.OPTIMAL:
            raise failure(self.name, solution, original=cause(chosen, program, solution.status))
        return solution

    def _solution(
        self,
        form: CanonicalForm,
        values: dict[str, np.ndarray],
        program: QuadraticProgram,
        raw: RawResult,
        solver: Solver,
        why: str,
        seconds: float,
    ) -> Solution:
        status = Status(int(raw.status[0]))
        sign = 1.0 if self.sense == "minimize" else -1.0
        stats = {
            "solver": solver.name,
            "why": why,
            "iterations": int(raw.iterations[0]),
            "seconds": seconds,
        }
        solution = Solution(
            x=form.split(raw.x[0]),
            objective=sign * float(np.asarray(program.objective(raw.x))[0]),
            duals=form.multipliers(raw.y[0], raw.z[0], raw.w[0]) if gives_multipliers(solver) else {},
            status=status,
            stats=stats,
            _form=form,
            _values=values,
            _program=program,
            _raw=raw,
            _solver=solver,
            _sense=sign,
        )
        if status in (
            Status.PRIMAL_INFEASIBLE,
            Status.UNBOUNDED,
            Status.NUMERICAL_ERROR,
            Status.ITERATION_LIMIT,
            Status.NO_SOLUTION,
        ):
            explain(solution, form, program, solver)
        return solution

    # ------------------------------------------------------------------------------------------ showing

    def __str__(self) -> str:
        return display.text(self)

    def __repr__(self) -> str:
        return f"<Model {self.name!r}: {len(self.variables)} variables, {len(self.constraints)} constraints>"

    def _repr_latex_(self) -> str:
        return display.latex(self)

    def summary(self) -> str:
        """Size, class, and which data of the program depend on which parameters."""
        return display.summary(self)


def _check_bounds(name: str, shape: tuple[int, ...], low: Expression, high: Expression) -> None:
    for side, bound in (("lb", low), ("ub", high)):
        if bound.has_variables:
            raise ModelError(f"{side} of variable {name!r} contains a variable; add a constraint instead")
        try:
            fits = np.broadcast_shapes(bound.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ModelError(
                f"{side} of variable {name!r} has shape {bound.shape}, which does not fit {shape}"
            )
    if isinstance(low, Constant) and isinstance(high, Constant) and (low.value > high.value).any():
        raise ModelError(f"variable {name!r} has a lower bound above its upper bound")


def _described(node: Expression, number: dict[int, int]) -> Any:
    if isinstance(node, Constant):
        return node.shape, node.value.tobytes()
    if isinstance(node, Variable | Parameter):
        return type(node).__name__, node.name
    attribute = node.attribute.key() if node.operation == "gather" else node.attribute
    return node.operation, attribute, tuple(number[id(a)] for a in node.arguments)


def _shape(shape: Any, name: str) -> tuple[int, ...]:
    try:
        found = (int(shape),) if isinstance(shape, int | np.integer) else tuple(int(s) for s in shape)
    except (TypeError, ValueError):
        raise ModelError(f"shape of {name!r} must be an int or a tuple of ints, got {shape!r}") from None
    if any(s < 1 for s in found):
        raise ModelError(f"shape of {name!r} must have positive entries, got {found}")
    return found


def _nearest(name: str, known: Iterable[str]) -> str:
    import difflib

    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(names) or 'none'}"
