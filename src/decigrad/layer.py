"""The decision layer: a pure, differentiable function from parameters to decisions."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from decigrad import compiled
from decigrad.errors import ModelError
from decigrad.expressions.expression import Expression, evaluate, parameters_of, topological
from decigrad.gradients import estimated, implicit
from decigrad.gradients.estimated import Estimated
from decigrad.gradients.methods import KKT, RelaxationGradient
from decigrad.model import Model
from decigrad.program import QuadraticProgram, RawResult, Solver, Start, gives_multipliers
from decigrad.solution import Solutions, count_kinks
from decigrad.solving import arranged, first_failure, resolve, run, spread


class DecisionLayer:
    """A model as a function: parameters in, decisions out, exact derivatives through.

        layer({"cost": C})["x"]

    Values are arrays by parameter name, each with or without leading batch axes; batch axes broadcast
    against each other, and what has none is shared: its gradient is the sum over the batch. `jit`, `vmap`,
    `grad`, `jvp`, `jacrev`, `jacfwd`, `hessian` compose with it.

    Args:
        model: the optimization model. Later changes of the model do not reach the layer.
        predicts: names of the predicted parameters; default: all that are not `known`.
        solver: "auto", a solver's name, or a solver object. `layer.why` says what was chosen and why.
        gradient: `KKT()` (exact), `Relaxed()`, `Smoothed(mu)`, `RelaxationGradient()`, or an estimator for
            discrete decisions such as `BlackBox()`; see `decigrad.gradients`.
        throw: outside a trace, raise when a sample fails, naming it. Inside a trace, and with
            `throw=False`, a failed sample has NaN decisions and a zero gradient.

    Raises:
        ModelError: unknown parameter, wrong shape, missing value; at call or trace time.
        InfeasibleError, UnboundedError, SolveError: outside a trace, with `throw`.
    """

    def __init__(
        self,
        model: Model,
        predicts: list[str] | tuple[str, ...] | None = None,
        solver: str | Solver = "auto",
        gradient: implicit.Gradient | Estimated | None = None,
        throw: bool = True,
    ) -> None:
        if predicts is None:
            predicts = [name for name, p in model.parameters.items() if not p.known]
        model.check_names(predicts)
        self.model = model
        self.form = model.form
        self.predicts = tuple(predicts)
        self.parameters = dict(model.parameters)
        self.gradient: Any = KKT() if gradient is None else gradient
        self.throw = throw
        self.asked = solver
        """The solver as it was asked for: a name or an object."""
        self.sign = 1.0 if model.sense == "minimize" else -1.0
        assert model.objective is not None
        self._objective = model.objective
        self.constrained_by = model.constrained_by()
        template = compiled.programs(
            self.form, {n: np.ones(p.shape) for n, p in self.parameters.items()}, frozenset()
        )
        asked = self.gradient.solver(solver, template)
        self.solver, self.why = resolve(asked, self.gradient.program(template))
        if isinstance(self.gradient, Estimated):
            self._refuse_more_than_costs()
        if asked is not solver:
            self.why = f"{self.solver.name}: the gradient {self.gradient} needs it ({self.why})"
        self.backward: DecisionLayer | None = None
        """The layer that is differentiated in place of this one."""
        if isinstance(self.gradient, RelaxationGradient):
            self.backward = self.with_gradient(self.gradient.smoothed)

    def _refuse_more_than_costs(self) -> None:
        if found := self.form.depends("P", "A", "b", "G", "h", "lb", "ub") & set(self.predicts):
            raise ModelError(
                f"{type(self.gradient).__name__} estimates the derivative in the cost alone, but "
                f"{sorted(found)} enter constraints or curvature: use KKT(), or mark them known"
            )

    def _identity(self) -> tuple[Any, ...]:
        """What the layer's functions depend on: layers that agree in it may share compiled code."""
        values = tuple(
            (n, None if p.value is None else p.value.tobytes()) for n, p in self.parameters.items()
        )
        return id(self.form), self.solver, self.gradient, self.predicts, self.sign, values, self.backward

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DecisionLayer) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __deepcopy__(self, memo: Any) -> DecisionLayer:
        """Itself: a layer never changes, and its compiled functions are its own."""
        return self

    def __reduce__(self) -> Any:
        if self.model.form is not self.form:
            raise ModelError(
                f"model {self.model.name!r} has changed since its layer was made: make the layer again"
            )
        return DecisionLayer, (self.model, self.predicts, self.asked, self.gradient, self.throw)

    def __repr__(self) -> str:
        return f"<DecisionLayer {self.model.name!r} predicts={list(self.predicts)} solver={self.solver.name}>"

    @property
    def exact(self) -> DecisionLayer:
        """The layer that decides without smoothing; itself if its gradient leaves the decision unchanged."""
        if not self.gradient.changes_forward and self.backward is None:
            return self
        return DecisionLayer(self.model, self.predicts, self.asked, throw=self.throw)

    @property
    def host(self) -> bool:
        """Whether deciding or differentiating takes a solver on the host."""
        return self.solver.host or (self.backward is not None and self.backward.host)

    def with_gradient(self, gradient: implicit.Gradient | Estimated) -> DecisionLayer:
        """The same layer with another derivative."""
        return DecisionLayer(self.model, self.predicts, self.asked, gradient, self.throw)

    # -------------------------------------------------------------------------------------------- calls

    def __call__(self, params: Mapping[str, Any], key: Any = None) -> dict[str, Any]:
        """Decisions by variable name, [*batch, *shape].

        `key` is a JAX random key for estimators that draw; without one they draw the same at every call.
        """
        if any(isinstance(v, jax.core.Tracer) for v in params.values()):
            return self.traced(params, key)[0]
        return {name: jnp.asarray(value) for name, value in self.solve(params, key=key).x.items()}

    def traced(self, params: Mapping[str, Any], key: Any = None) -> tuple[dict[str, Any], Any]:
        """Decisions and status by sample, inside a trace."""
        if isinstance(self.gradient, Estimated):
            return self._traced_estimate(params, jax.random.PRNGKey(0) if key is None else key)
        if self.backward is not None:
            decided, status = self.with_gradient(KKT()).traced(jax.lax.stop_gradient(dict(params)))
            smooth, other = self.backward.traced(params)
            valued = {n: implicit.with_derivative_of(x, smooth[n]) for n, x in decided.items()}
            return valued, jnp.maximum(status, other)
        return self.traced_from(params, None)[:2]

    def traced_from(
        self, params: Mapping[str, Any], start: Start | None
    ) -> tuple[dict[str, Any], Any, Start]:
        """As `traced`, from the active sets [B, ·] to try first, and those of the solutions.

        For gradients that differentiate the decision itself. A solver without a `traced` form starts cold.
        """
        values, lead = self._arranged(params, jnp)
        axes = self._axes(values)
        if all(axis is None for axis in axes.values()):  # one sample, whatever axes it was given with
            start = jax.tree_util.tree_map(lambda a: a[0], start)
            alone = self._single_traced(values, start)
            x, status, ended = jax.tree_util.tree_map(lambda a: jnp.broadcast_to(a, lead + a.shape), alone)
        else:
            x, status, ended = jax.vmap(self._single_traced, in_axes=(axes, 0))(values, start)
        size = int(np.prod(lead, dtype=int))
        ended = jax.tree_util.tree_map(lambda a: a.reshape(size, a.shape[-1]), ended)
        return self.form.split(x.reshape(lead + x.shape[-1:])), status.reshape(lead), ended

    def _traced_estimate(self, params: Mapping[str, Any], key: Any) -> tuple[dict[str, Any], Any]:
        values, lead = self._arranged(params, jnp)
        axes = self._axes(values)
        keys = jax.random.split(key, int(np.prod(lead, dtype=int)))

        def one(values: dict[str, Any], key: Any) -> tuple[Any, Any]:
            program = jax.tree_util.tree_map(jnp.asarray, self.form.assemble(values, jnp))
            return estimated.solve(self.gradient, self.solver, program, key)

        x, status = jax.vmap(one, in_axes=(axes, 0))(values, keys)
        return self.form.split(x.reshape(lead + x.shape[1:])), status.reshape(lead)

    def check_derivative(self) -> None:
        """Refuse to differentiate decisions in predictions where the solver leaves that undefined.

        Raises:
            ModelError: a predicted parameter enters constraints and the solver is an oracle, which gives no
                multipliers; or the oracle's decisions are not vertices and their derivative is unknown.
        """
        if self.backward is not None:
            self.backward.check_derivative()
        elif not isinstance(self.gradient, Estimated):
            predicted = set(self.predicts)
            parts = [part for part in compiled.PARTS if self.form.depends(part) & predicted]
            entering = self.form.depends(*implicit.undefined(self.solver)) & predicted
            implicit.refuse(self.solver, parts, sorted(entering))

    def saved(self, solutions: Solutions, cotangent: Any) -> Any:
        """What `pairing` needs of solutions of this layer, and of the cotangent of their decisions."""
        if self.backward is not None:
            return self.backward.saved(self.backward._again(solutions), cotangent)
        if not isinstance(self.gradient, Estimated):
            self.check_derivative()
            flat = solutions.flat(cotangent, self.form)
            return self.gradient.saved(solutions.program, solutions.raw, flat)
        z, forward = solutions.noise
        return estimated.pullback(
            self.gradient,
            lambda program: run(self.form, self.solver, program)[0],
            solutions.program,
            solutions.raw,
            forward,
            z,
            solutions.flat(cotangent, self.form),
        )

    def _again(self, solutions: Solutions) -> Solutions:
        """This layer's solutions of the programs that another layer of the model has solved as stated."""
        program = self.gradient.program(solutions.program)
        raw = spread(run(self.form, self.solver, program)[0], len(solutions.raw.x))
        return replace(solutions, program=program, raw=raw, gradient=self.gradient)

    def pairing(self, params: Mapping[str, Any], saved: Any) -> Any:
        """A number, inside a trace, whose negative gradient in the parameters is the pullback of `saved`."""
        if self.backward is not None:
            return self.backward.pairing(params, saved)
        return self.over_batch(params, self.gradient.pairing, saved).sum()

    def over_batch(self, params: Mapping[str, Any], function: Any, *others: Any) -> Any:
        """`function(program, *others)` by sample, inside a trace; `others` have one leading axis B."""
        values, _ = self._arranged(params, jnp)

        def one(values: dict[str, Any], *others: Any) -> Any:
            return function(self.form.assemble(values, jnp), *others)

        return jax.vmap(one, in_axes=(self._axes(values), *(0 for _ in others)))(values, *others)

    def _single_traced(self, values: dict[str, Any], start: Start | None) -> tuple[Any, Any, Start]:
        program = jax.tree_util.tree_map(jnp.asarray, self.form.assemble(values, jnp))
        raw = self.gradient.decide(self.solver, program, start)
        return raw.x, raw.status, Start(raw.active, raw.fixed)

    def programs(
        self, params: Mapping[str, Any], check: bool = False
    ) -> tuple[QuadraticProgram, tuple[int, ...]]:
        """The programs of a batch as the model states them, outside any trace, and the batch's axes."""
        values, lead = self._arranged(params, np)
        if check:
            for name, value in values.items():
                self.parameters[name].check(value)
        mapped = frozenset(n for n, v in values.items() if v.ndim > self.parameters[n].ndim)
        return compiled.programs(self.form, values, mapped), lead

    def solve(
        self,
        params: Mapping[str, Any],
        throw: bool | None = None,
        key: Any = None,
        start: RawResult | Start | None = None,
    ) -> Solutions:
        """Solve a batch outside any trace, in float64; statuses, multipliers and statistics by sample.

        `key` as in a call. `start` holds the active sets to try first, such as `solutions.raw` of a batch
        nearby: it changes the time and no answer but by rounding. Solvers that start cold leave it aside.
        """
        throw = self.throw if throw is None else throw
        began = time.perf_counter()
        stated, lead = self.programs(params, check=throw)
        program = self.gradient.program(stated)
        size = int(np.prod(lead, dtype=int))
        found: Any
        solver = functools.partial(run, self.form, self.solver)
        if isinstance(self.gradient, Estimated):
            key = jax.random.PRNGKey(0) if key is None else key
            with compiled.float64():
                found = estimated.on_host(self.gradient, solver, program, key)
        else:
            found = *solver(program, start), None
        raw, handed_on, noise = spread(found, size)
        stats = {
            "solver": self.solver.name,
            "why": self.why,
            "iterations": raw.iterations.reshape(lead), "seconds": time.perf_counter() - began,
            "kinks": self._kinks(program, raw).reshape(lead),
            "handed_on": handed_on.reshape(lead),
        }  # fmt: skip
        solutions = Solutions(
            x=self.form.split(raw.x.reshape(lead + raw.x.shape[1:])),
            objective=self.sign * np.asarray(stated.objective(raw.x)).reshape(lead),
            duals=self._duals(self.gradient.stated(stated, raw), lead),
            status=raw.status.reshape(lead),
            stats=stats,
            program=program,
            raw=raw,
            gradient=self.gradient,
            noise=noise,
        )
        if throw and solutions.failed.size:
            raise first_failure(self.model.name, self.form, self.solver, solutions)
        return solutions

    def _duals(self, raw: RawResult, lead: tuple[int, ...]) -> dict[str, np.ndarray]:
        if not gives_multipliers(self.solver):
            return {}
        return self.form.multipliers(*(a.reshape(lead + a.shape[1:]) for a in (raw.y, raw.z, raw.w)))

    def _kinks(self, program: QuadraticProgram, raw: RawResult) -> np.ndarray:
        if not gives_multipliers(self.solver):
            return np.zeros(raw.status.shape, int)
        return np.broadcast_to(count_kinks(program, raw), raw.status.shape)

    def objective(self, decisions: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        """The model's own objective f(x; p) by sample, [*batch]; differentiable in both.

        Evaluates the stated expression, so `decisions` may come from anywhere.
        """
        return self.evaluate(self._objective, decisions, params)

    def value(self, params: Mapping[str, Any]) -> Any:
        """The optimal value by sample, [*batch]; its gradient is that of the envelope theorem.

        Raises:
            ModelError: differentiated in a parameter of the constraints, where the solver is an oracle.
        """
        if self.backward is not None:  # a derivative of decisions; the value's is known exactly
            return self.exact.value(params)
        at = dict(params)
        if not self.gradient.changes_forward and (
            isinstance(self.gradient, Estimated) or not gives_multipliers(self.solver)
        ):  # where only the objective moves, decisions count as constants
            entering = self.form.depends("A", "b", "G", "h", "lb", "ub")
            still = [n for n in params.keys() - entering if isinstance(params[n], jax.core.Tracer)]
            at |= {n: jax.lax.stop_gradient(params[n]) for n in still}
        return self.objective(self(at), params)

    def evaluate(
        self, expression: Expression, decisions: Mapping[str, Any], params: Mapping[str, Any]
    ) -> Any:
        """Any expression in the model's variables and parameters, by sample."""
        self.check_expression(expression)
        used = parameters_of(expression)
        traced = any(isinstance(v, jax.core.Tracer) for v in [*decisions.values(), *params.values()])
        needed = {n: v for n, v in self._completed(params).items() if n in used}
        variables = {n: v for n, v in decisions.items() if n in self.form.variables}
        shapes = {n: self.form.variables[n].shape for n in variables} | {n: p.shape for n, p in used.items()}
        values, lead = arranged({**variables, **needed}, shapes, jnp if traced else np)

        def one(values: dict[str, Any]) -> Any:
            return jnp.asarray(evaluate([expression], values, jnp)[0])

        axes = {n: 0 if v.ndim > len(shapes[n]) else None for n, v in values.items()}
        if all(axis is None for axis in axes.values()):  # one sample, whatever axes it was given with
            xp = jnp if traced else np
            alone = xp.asarray(evaluate([expression], values, xp)[0])
            return xp.broadcast_to(alone, lead + alone.shape)
        function = jax.vmap(one, in_axes=(axes,))
        if traced:
            found = function(values)
        else:
            # the expression is kept in the entry, so that its id stays its own
            key = ("evaluate", id(expression), tuple(sorted(axes.items(), key=lambda item: item[0])))
            _, jitted = compiled.cached(self.form, key, lambda: (expression, jax.jit(function)))
            with compiled.float64():
                found = np.asarray(jitted(values))
        return found.reshape(lead + found.shape[1:])

    # ---------------------------------------------------------------------------------------- checking

    def _completed(self, params: Mapping[str, Any]) -> dict[str, Any]:
        self.model.check_names(params)
        found = {}
        for name, parameter in self.parameters.items():
            if name in params:
                found[name] = params[name]
            elif parameter.value is not None:
                found[name] = parameter.value
            else:
                raise ModelError(f"parameter {name!r} has no value: pass it to the layer or set its .value")
        return found

    def _arranged(self, params: Mapping[str, Any], xp: Any) -> tuple[dict[str, Any], tuple[int, ...]]:
        shapes = {n: p.shape for n, p in self.parameters.items()}
        return arranged(self._completed(params), shapes, xp)

    def _axes(self, values: dict[str, Any]) -> dict[str, int | None]:
        return {n: 0 if v.ndim > self.parameters[n].ndim else None for n, v in values.items()}

    def check_expression(self, expression: Expression) -> None:
        """Refuse an expression that uses variables or parameters of another model."""
        own = {id(n) for n in [*self.model.variables.values(), *self.parameters.values()]}
        for node in topological(expression):
            if not node.arguments and hasattr(node, "name") and id(node) not in own:
                raise ModelError(f"the expression uses {node.name!r}, which belongs to another model")
