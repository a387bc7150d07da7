"""The narrow waist: every model becomes a program, every solver takes a program.

The standard form is

    minimize    ½ xᵀP x + qᵀx + r
    subject to  A x = b            (multiplier y, free)
                G x ≤ h            (multiplier z ≥ 0)
                lb ≤ x ≤ ub        (multiplier w = w⁺ − w⁻: positive at ub, negative at lb)

with the Lagrangian  L = ½xᵀPx + qᵀx + r + yᵀ(Ax − b) + zᵀ(Gx − h) + wᵀx  (up to constants), so that
a solution satisfies  P x + q + Aᵀy + Gᵀz + w = 0.

A program is *single* (leaves as in the formula) or *batched*: every leaf then has one leading axis,
of size B where the values differ by sample and of size 1 where they are shared. Solvers take batched
programs only; what is shared can be factored once.

Arrays may be NumPy or JAX: the operators use nothing but methods that both have.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Array: TypeAlias = Any  # numpy.ndarray or jax.Array


def namespace(*arrays: Array) -> Any:
    """`jax.numpy` if any array is a JAX array or tracer, else `numpy`."""
    return jnp if any(type(a) is not np.ndarray and isinstance(a, jax.Array) for a in arrays) else np


class Status(enum.IntEnum):
    """What a solver says about one sample."""

    OPTIMAL = 0
    PRIMAL_INFEASIBLE = 1
    UNBOUNDED = 2
    NONCONVEX = 3
    ITERATION_LIMIT = 4
    TIME_LIMIT = 5
    NUMERICAL_ERROR = 6
    INVALID_DATA = 7
    ORACLE_ERROR = 8
    INFEASIBLE_POINT = 9
    NO_SOLUTION = 10

    def __str__(self) -> str:
        return self.name

    @property
    def advice(self) -> str:
        """What the user can do about it."""
        return _ADVICE[self]


_ADVICE = {
    Status.OPTIMAL: "solved to tolerance",
    Status.PRIMAL_INFEASIBLE: "no point satisfies all constraints; `solution.conflict` names a small clash",
    Status.UNBOUNDED: "the objective falls without limit along `solution.ray`; bound the variables it moves",
    Status.NONCONVEX: "the quadratic objective has negative curvature; only convex programs are supported",
    Status.ITERATION_LIMIT: "raise `max_iterations`, rescale the data, or choose another solver",
    Status.TIME_LIMIT: "allow it more time; a decision that is not NaN is the best point found so far",
    Status.NUMERICAL_ERROR: "badly scaled or nearly degenerate data; rescale, or choose another solver",
    Status.INVALID_DATA: "the program's data contain NaN or infinite values",
    Status.ORACLE_ERROR: "the oracle raised an exception on this sample; call it on its costs to see it",
    Status.INFEASIBLE_POINT: "the oracle's answer violates the model's constraints: correct one of the two",
    Status.NO_SOLUTION: "the oracle found no solution of this sample: its set is empty there, or it gave up",
}


# --------------------------------------------------------------------------------------------- operators


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dense:
    """A matrix [m, n], or a batch of them [B or 1, m, n]."""

    matrix: Array

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape[-2], self.matrix.shape[-1]

    def matvec(self, x: Array) -> Array:
        return _apply(self.matrix, x)

    def rmatvec(self, y: Array) -> Array:
        return _apply(self.matrix.swapaxes(-1, -2), y)

    def dense(self) -> Array:
        return self.matrix


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Diagonal:
    """A diagonal matrix, by its diagonal [n] or [B or 1, n]."""

    diagonal: Array

    @property
    def shape(self) -> tuple[int, int]:
        return self.diagonal.shape[-1], self.diagonal.shape[-1]

    def matvec(self, x: Array) -> Array:
        return self.diagonal * x

    rmatvec = matvec

    def dense(self) -> Array:
        return self.diagonal[..., :, None] * np.eye(self.diagonal.shape[-1])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LowRank:
    """Low rank plus diagonal: diag(d) + Fᵀ diag(v) F with d [n], F [k, n], v [k], batched or shared."""

    diagonal: Array
    factor: Array
    weight: Array

    @property
    def shape(self) -> tuple[int, int]:
        return self.diagonal.shape[-1], self.diagonal.shape[-1]

    def matvec(self, x: Array) -> Array:
        inner = self.weight * _apply(self.factor, x)
        return self.diagonal * x + _apply(self.factor.swapaxes(-1, -2), inner)

    rmatvec = matvec

    def dense(self) -> Array:
        n = self.diagonal.shape[-1]
        low = self.factor.swapaxes(-1, -2) @ (self.weight[..., :, None] * self.factor)
        return self.diagonal[..., :, None] * np.eye(n) + low


Operator: TypeAlias = Dense | Diagonal | LowRank


def _apply(matrix: Array, x: Array) -> Array:
    """The product matrix @ x, batched or not; a shared matrix becomes one matrix product."""
    if matrix.ndim == 3 and matrix.shape[0] == 1 and x.ndim == 2:
        shared = matrix[0].swapaxes(-1, -2)
        rows = _ON_ONE_THREAD // max(shared.size, 1)
        if isinstance(x, np.ndarray) and len(x) > rows > 1:
            return np.concatenate([part @ shared for part in np.array_split(x, -(-len(x) // rows))])
        return x @ shared
    return (matrix @ x[..., None])[..., 0]


# After a product that it divided among threads, OpenBLAS keeps them spinning for some 30 ms, on the cores
# that the compiled core wants next: that took twice the time. So products are cut to what stays on one.
_ON_ONE_THREAD = 1 << 18


# ---------------------------------------------------------------------------------------------- programs


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class QuadraticProgram:
    """A linear or quadratic program in the standard form above; single or batched.

    Infinite bounds are ±inf. `integer` names the variables restricted to integers (positions, static).
    """

    P: Operator
    q: Array
    r: Array
    A: Dense
    b: Array
    G: Dense
    h: Array
    lb: Array
    ub: Array
    integer: tuple[int, ...] = field(default=(), metadata={"static": True})
    linear: bool = field(default=False, metadata={"static": True})
    """True where P is known to be zero: a linear program."""

    @property
    def n(self) -> int:
        return self.q.shape[-1]

    @property
    def num_equalities(self) -> int:
        return self.b.shape[-1]

    @property
    def num_inequalities(self) -> int:
        return self.h.shape[-1]

    @property
    def is_integer(self) -> np.ndarray:
        """True at the variables restricted to integers, bool [n]."""
        return np.isin(np.arange(self.n), self.integer)

    @property
    def batch_size(self) -> int:
        """Number of samples of a batched program."""
        return max(leaf.shape[0] for leaf in jax.tree_util.tree_leaves(self))

    def sample(self, i: int) -> QuadraticProgram:
        """Sample i of a batched program, as a batch of one (a shared leaf stays shared)."""
        return jax.tree_util.tree_map(lambda a: a if a.shape[0] == 1 else a[i : i + 1], self)

    def take(self, index: Array) -> QuadraticProgram:
        """The samples `index` of a batched program, as a batched program."""
        return jax.tree_util.tree_map(lambda a: a if a.shape[0] == 1 else a[index], self)

    def numpy(self) -> QuadraticProgram:
        """The same program with float64 NumPy leaves."""
        return jax.tree_util.tree_map(lambda a: np.asarray(a, dtype=np.float64), self)

    def objective(self, x: Array) -> Array:
        """½xᵀPx + qᵀx + r, by sample."""
        return (x * (0.5 * self.P.matvec(x) + self.q)).sum(-1) + self.r

    def stationarity(self, x: Array, y: Array, z: Array, w: Array) -> Array:
        """∇ₓL = P x + q + Aᵀy + Gᵀz + w, by sample."""
        return self.P.matvec(x) + self.q + self.A.rmatvec(y) + self.G.rmatvec(z) + w


def gives_multipliers(solver: Solver) -> bool:
    """Whether a solver's multipliers and active set are those of the KKT conditions; an oracle has none."""
    return bool(getattr(solver, "multipliers", True))


def batched(program: QuadraticProgram) -> QuadraticProgram:
    """A single program as a batch of one."""
    return jax.tree_util.tree_map(lambda a: a[None], program)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RawResult:
    """What every solver returns, for a batch of B samples.

    `active` [B, m] marks inequalities that hold with equality and have a positive multiplier, `fixed`
    [B, n] is −1 / 0 / +1 for variables held at their lower bound / free / held at their upper bound with a
    nonzero multiplier. Both come from multipliers *and* slacks after polishing: they are the active set
    that derivatives use. A failed sample has NaN in `x`, zeros in the multipliers, and its `status`.
    """

    x: Array
    y: Array
    z: Array
    w: Array
    active: Array
    fixed: Array
    status: Array
    iterations: Array

    def replace(self, **changes: Array) -> RawResult:
        return replace(self, **changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Start:
    """The active sets that a solver tries first: `active` [B, mi] and `fixed` [B, n] as in a `RawResult`."""

    active: Array
    fixed: Array


def raw_shapes(program: QuadraticProgram) -> RawResult:
    """Shapes and types of the result for a single program."""
    dtype = program.q.dtype

    def of(*shape: int, kind: Any = dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, kind)

    n, me, mi = program.n, program.num_equalities, program.num_inequalities
    return RawResult(
        x=of(n), y=of(me), z=of(mi), w=of(n), active=of(mi, kind=bool), fixed=of(n, kind=jnp.int8),
        status=of(kind=jnp.int32), iterations=of(kind=jnp.int32),
    )  # fmt: skip


class Solver(Protocol):
    """Solves batches of programs. A solver is a value: it keeps no state that changes an answer. One that
    says `warm = True` takes the active sets to start from, a `Start` or an earlier result, as a second
    argument; that changes the time, and no answer but by rounding.

    `host` solvers take and return NumPy arrays and are called outside `jit` (or through one callback a
    batch); the others are JAX functions. `refuses` says why a class of programs is not for this solver,
    judged by static facts alone (shapes, operator types, `integer`, `linear`), or returns None. A device
    solver may have a method `second(program)`: the host solver that outside `jit` is asked about the samples
    it gives up on, or None. A host solver may have a method `traced(program)`: what replaces a callback
    for batched programs inside a trace. A solver that finds decisions without multipliers, as an oracle does,
    says so by `multipliers = False`, and by `vertex` whether its decisions are vertices.
    """

    @property
    def name(self) -> str: ...

    @property
    def host(self) -> bool: ...

    def refuses(self, program: QuadraticProgram) -> str | None: ...

    def __call__(self, program: QuadraticProgram) -> RawResult: ...
