"""What an oracle is: a solver of one linear problem, cost batch in, solution batch out.

An oracle minimizes qᵀx over a set that it knows: by a dynamic program, a sort, an enumeration, a function of
the user's. It is a `Solver`, so `DecisionLayer(model, solver=oracle)` decides with it, and every loss, metric
and report works as with any other solver. Where the model states constraints too, each answer is checked
against them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.errors import ModelError
from decigrad.program import Array, QuadraticProgram, RawResult, Status, namespace

FEASIBILITY = 1e-6
"""Largest violation of a stated constraint, relative to its right-hand side and to x, in an answer."""


class LinearOracle(ABC):
    """An exact minimizer of qᵀx over a set: costs q [B, n] -> solutions x [B, n].

    A subclass is a value (hashable, equal when it decides alike: a frozen dataclass) with a `name` and a
    method `minimize`. `host` says whether that takes and returns NumPy arrays, or else is a JAX function.

    Where several solutions are optimal the one that is returned depends on the costs of that sample alone.
    """

    name: ClassVar[str]
    host: ClassVar[bool] = False
    multipliers: ClassVar[bool] = False
    """An oracle finds decisions alone: there is no derivative in constraints."""
    vertex: ClassVar[bool] = True
    """The decision is a vertex, so its derivative in the cost is zero almost everywhere."""
    stated: ClassVar[bool] = True
    """A model can state the set, or a useful relaxation, such as two edges at every city for tours. Where it
    cannot, constraints only check the answers, and what reads them in place of the set is refused."""

    @abstractmethod
    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Solutions [B, n] for costs [B, n]; NaN in a sample that has none.

        `program` is the batched program that the costs come from, for oracles that read instance data (a
        capacity that differs by sample) in its constraints.
        """

    def size(self) -> int | None:
        """Number of variables n, or None where the oracle takes any."""
        return None

    def refuses(self, program: QuadraticProgram) -> str | None:
        """Why this class of programs is not for the oracle, or None."""
        if not program.linear:
            return "an oracle minimizes a linear objective; this one has curvature"
        if self.size() not in (None, program.n):
            return f"the oracle has {self.size()} variables, the model {program.n}"
        return None

    def refuse_unstated(self, program: QuadraticProgram, reader: str) -> None:
        """Raise where `reader` would take the program's constraints for the set, and they are another one."""
        some = program.num_equalities or program.num_inequalities
        if not (some and self.stated and self.vertex):
            raise ModelError(
                f"{reader} reads the constraints that the model states, and it states "
                f"{'only a part of the set' if some else 'none'}: the set is known to the solver "
                f"{self.name!r} alone. {'Use' if some else 'State them, or use'} what asks the solver: "
                f"SPOPlus, PerturbedFenchelYoung, FrankWolfe"
            )

    def __call__(self, program: QuadraticProgram) -> RawResult:
        """Solve a batched program. On the host, an exception is laid at the samples that raise it."""
        cost, known, program = self._asked(program)
        if not self.host:
            return answered(program, self._checked(cost, program), known)
        try:
            return answered(program, self._checked(cost, program), known)
        except ModelError:
            raise
        except ARBITRARY:
            x = np.full(cost.shape, np.nan)
            outcome = np.zeros(len(x), np.int32)
        for i in range(len(x)):
            try:
                x[i] = self._checked(cost[i : i + 1], program.sample(i))[0]
            except ModelError:
                raise
            except TimeoutError:
                outcome[i] = int(Status.TIME_LIMIT)
            except ARBITRARY:
                outcome[i] = int(Status.ORACLE_ERROR)
        return answered(program, x, known, outcome)

    def exception(self, program: QuadraticProgram) -> Exception | None:
        """What `minimize` raises on a batched program, if anything."""
        cost, _, program = self._asked(program)
        try:
            self.minimize(cost, program)
        except ARBITRARY as error:
            return error
        return None

    def _asked(self, program: QuadraticProgram) -> tuple[Array, Array, QuadraticProgram]:
        """Costs [B, n], zero where they are not known, and where they are [B]."""
        program = program.numpy() if self.host else program
        xp, batch = namespace(program.q), program.batch_size
        known = xp.isfinite(program.q).all(-1)
        cost = xp.where(known[:, None], program.q, 0.0)
        return xp.broadcast_to(cost, (batch, program.n)), xp.broadcast_to(known, (batch,)), program

    def _checked(self, cost: Array, program: QuadraticProgram) -> Array:
        x = self.minimize(cost, program)
        if x.shape != cost.shape:
            raise ModelError(f"an oracle must return solutions of shape {cost.shape}, got {x.shape}")
        return x


ARBITRARY = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, OSError, AssertionError)
"""What an oracle may raise on one sample."""


def answered(program: QuadraticProgram, x: Array, known: Array, outcome: Array = 0) -> RawResult:
    """The raw result of solutions x [B, n]: without multipliers, checked against what the program states.

    `known` [B]: the costs were finite. `outcome` [B]: the `Status` of samples that have no answer, else 0.
    """
    xp = namespace(x, program.q)
    batch, n = x.shape
    me, mi = program.num_equalities, program.num_inequalities
    solved = xp.isfinite(x).all(-1)
    safe = xp.where(solved[:, None], x, 0.0)
    size = 1.0 + abs(safe).max(-1, keepdims=True)
    off = xp.maximum(program.lb - safe, safe - program.ub).max(-1)
    if me:
        gap = abs(program.A.matvec(safe) - program.b) / (1.0 + abs(program.b))
        off = xp.maximum(off, gap.max(-1))
    if mi:
        bound = xp.where(xp.isfinite(program.h), program.h, 0.0)
        gap = (program.G.matvec(safe) - program.h) / (1.0 + abs(bound))
        off = xp.maximum(off, gap.max(-1))
    status = xp.where(off <= FEASIBILITY * size[:, 0], int(Status.OPTIMAL), int(Status.INFEASIBLE_POINT))
    status = xp.where(solved, status, int(Status.NO_SOLUTION))
    status = xp.where(outcome, outcome, status)
    status = xp.where(known, status, int(Status.INVALID_DATA)).astype(np.int32)

    def none(width: int, kind: Any = x.dtype) -> Array:
        return xp.zeros((batch, width), kind)

    return RawResult(
        x=xp.where((status == int(Status.OPTIMAL))[:, None], x, xp.nan),
        y=none(me), z=none(mi), w=none(n), active=none(mi, bool), fixed=none(n, np.int8),
        status=status, iterations=xp.zeros(batch, np.int32),
    )  # fmt: skip


@dataclass(frozen=True)
class Oracle(LinearOracle):
    """A function of yours as an oracle: `function(costs [B, n]) -> solutions [B, n]`.

    Args:
        function: minimizes costsᵀx for each row. With `jax=True` a JAX function, traced and compiled; else
            any Python function on NumPy arrays.
        jax: see above.
        batched: False for a function of one cost vector [n]; it is called sample by sample.
        vertex: False where the set is curved, so that its solutions move with the cost: then there is no
            derivative of the decision, and losses that take one (`Regret`) are refused.
        stated: False where the model's constraints are but a part of the set (see `LinearOracle.stated`).

    A row of NaN says that the sample has no solution (`Status.NO_SOLUTION`). An exception in a batch is
    looked for sample by sample: those that raise get `Status.ORACLE_ERROR`, or `Status.TIME_LIMIT` for a
    `TimeoutError`, the others their answer. Oracles are equal when their functions are the same object.
    """

    function: Callable[[Any], Any]
    jax: bool = False
    batched: bool = True
    vertex: bool = True  # type: ignore[misc]
    stated: bool = True  # type: ignore[misc]
    name: str = field(default="oracle", compare=False)  # type: ignore[misc]

    @property
    def host(self) -> bool:  # type: ignore[override]
        """Whether it runs on the host."""
        return not self.jax

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """The function's answer, as given."""
        if self.jax:
            answer = (self.function if self.batched else jax.vmap(self.function))(cost)
            found: Array = jnp.asarray(answer).astype(cost.dtype)
            return found
        cost = np.array(cost)
        answer = self.function(cost) if self.batched else [*map(self.function, cost)]
        try:
            return np.asarray(answer, np.float64)
        except (TypeError, ValueError) as error:
            raise ModelError(f"an oracle must return an array of numbers: {error}") from None
