"""The compiled core, where it is installed: dual active sets and sensitivities of batches, in C++ on the CPU.

The functions of this file are those of `native/`, for NumPy arrays and, by `jax.ffi`, inside a trace. They
work in float64. Without the extension (no compiler at installation) `missing` says so and nothing else may be
called.
"""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.batching import cores
from decigrad.program import Array, Dense, Diagonal, Operator, QuadraticProgram, Start

OPTIMAL, UNSETTLED, UNSOLVED, UNSUITABLE = range(4)
"""Verdicts: verified; verified, but its active set needs a closer look; no answer; P is not positive definite
or the data are not numbers."""
REGULAR, DEPENDENT = 1, 2
"""What is said of a sensitivity that was found: its active constraints are independent, or not."""

_WORK = 1 << 18  # products below which a batch is not worth a second thread
_TARGETS = {"solve": "decigrad_active_set_solve", "sensitivity": "decigrad_active_set_sensitivity"}


@functools.cache
def _module() -> Any:
    """The extension, its functions registered with XLA; or the reason why there is none."""
    try:
        module = import_module("decigrad._active_set")
    except ImportError as error:
        return str(error)
    for name, target in module.targets().items():
        jax.ffi.register_ffi_target(name, target, platform="cpu")
    return module


def missing() -> str | None:
    """Why the compiled core cannot be used, or None."""
    found = _module()
    if not isinstance(found, str):
        return None
    return f"decigrad was installed without its compiled core, as where there is no C++ compiler ({found})"


def instructions() -> str:
    """The processor's instructions that the core uses: "AVX2" or "baseline"."""
    return str(_module().instructions())


def threads_for(asked: int | None, batch: int, n: int) -> int:
    """Threads for a batch: as asked, or those of the processor where there is work for them."""
    if asked is not None:
        return asked
    if batch < 2 or batch * n * n < _WORK:
        return 1
    return cores()


def _operator(P: Operator) -> tuple[int, Array, Array, Array]:
    """Kind, matrix or diagonal, factor and weight of P."""
    if isinstance(P, Dense):
        return 0, P.matrix, _NO_FACTOR, _NO_WEIGHT
    if isinstance(P, Diagonal):
        return 1, P.diagonal, _NO_FACTOR, _NO_WEIGHT
    return 2, P.diagonal, P.factor, P.weight


_NO_FACTOR, _NO_WEIGHT = np.zeros((1, 0, 0)), np.zeros((1, 0))


def _plain(a: Array) -> np.ndarray:
    return np.ascontiguousarray(a, dtype=np.float64)


# ---------------------------------------------------------------------------------------------- on the host


def solve(
    program: QuadraticProgram,
    active: np.ndarray,
    fixed: np.ndarray,
    *,
    warm: bool,
    limit: int,
    shift: float = 0.0,
    threads: int | None = None,
) -> tuple[np.ndarray, ...]:
    """(x, y, z, w, verdict [B], iterations [B]) of a batched program.

    Arguments:
        program: P is positive definite, or semidefinite where `shift` is given.
        active, fixed: [B, mi] bool and [B, n] int8, written with the active sets; where `warm`, they hold
            those to start from. That changes the time, and the answer by no more than rounding.
        limit: changes of the active set for one sample.
        shift: ε > 0 solves by the proximal point method, each step of which adds ε to the diagonal of P.
        threads: at most so many.
    """
    kind, P, factor, weight = _operator(program.P)
    B, n = fixed.shape
    x, y, z, w = (
        np.empty((B, n)),
        np.empty((B, program.num_equalities)),
        np.empty(active.shape),
        np.empty((B, n)),
    )
    verdict, iterations = np.empty(B, np.int32), np.empty(B, np.int32)
    _module().solve(
        kind, _plain(P), _plain(factor), _plain(weight), _plain(program.q), _plain(program.A.matrix),
        _plain(program.b), _plain(program.G.matrix), _plain(program.h), _plain(program.lb),
        _plain(program.ub), x, y, z, w, active, fixed, verdict, iterations, shift, warm, limit,
        threads_for(threads, B, n),
    )  # fmt: skip
    return x, y, z, w, verdict, iterations


def sensitivity(
    program: QuadraticProgram,
    active: np.ndarray,
    fixed: np.ndarray,
    rhs: np.ndarray,
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """v = K⁺ rhs of `decigrad.kkt` at the active sets [B, mi] and [B, n], and what is said of it.

    Returns:
        v [B, N], and by sample REGULAR, DEPENDENT, or 0 where it is not found.
    """
    kind, P, factor, weight = _operator(program.P)
    B, n = fixed.shape
    v, found = np.empty((B, rhs.shape[1])), np.empty(B, np.int8)
    _module().sensitivity(
        kind, _plain(P), _plain(factor), _plain(weight), _plain(program.A.matrix), _plain(program.G.matrix),
        np.ascontiguousarray(active, bool), np.ascontiguousarray(fixed, np.int8), _plain(rhs), v, found,
        threads_for(threads, B, n),
    )  # fmt: skip
    return v, found


# ------------------------------------------------------------------------------------------ inside a trace


def traced_solve(
    program: QuadraticProgram, start: Start | None, limit: int, shift: float, threads: int | None
) -> tuple[Array, ...]:
    """(x, y, z, w, active, fixed, verdict, iterations) of a batched float64 program, on the CPU."""
    kind, P, factor, weight = _operator(program.P)
    B, n, me, mi = program.batch_size, program.n, program.num_equalities, program.num_inequalities

    def of(*shape: int, kind: Any = jnp.float64) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((B, *shape), kind)

    shapes = (
        of(n), of(me), of(mi), of(n), of(mi, kind=jnp.bool_), of(n, kind=jnp.int8), of(kind=jnp.int32),
        of(kind=jnp.int32),
    )  # fmt: skip
    warm = start is not None
    sets = Start(np.zeros((1, mi), bool), np.zeros((1, n), np.int8)) if start is None else start
    call = jax.ffi.ffi_call(_TARGETS["solve"], shapes)
    return tuple(
        call(
            P, factor, weight, program.q, program.A.matrix, program.b, program.G.matrix, program.h,
            program.lb, program.ub, sets.active, sets.fixed,
            kind=np.int64(kind), shift=np.float64(shift), warm=warm, limit=np.int64(limit),
            threads=np.int64(threads_for(threads, B, n)),
        )
    )  # fmt: skip


def traced_sensitivity(
    program: QuadraticProgram, active: Array, fixed: Array, rhs: Array, threads: int | None = None
) -> tuple[Array, Array]:
    """As `sensitivity`, inside a trace on the CPU."""
    kind, P, factor, weight = _operator(program.P)
    B, n = fixed.shape
    shapes = jax.ShapeDtypeStruct((B, rhs.shape[1]), jnp.float64), jax.ShapeDtypeStruct((B,), jnp.int8)
    call = jax.ffi.ffi_call(_TARGETS["sensitivity"], shapes)
    v, found = call(
        P, factor, weight, program.A.matrix, program.G.matrix, active, fixed, rhs,
        kind=np.int64(kind), threads=np.int64(threads_for(threads, B, n)),
    )  # fmt: skip
    return v, found
