"""Compiled functions of a canonical form, kept with the form: equal models compile once.

Everything here runs in float64 whatever JAX's setting, and takes and returns host arrays. Inside a user's
own trace none of it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.canonical import CanonicalForm
from decigrad.gradients.implicit import Coupling, Gradient, residual
from decigrad.program import QuadraticProgram, RawResult, Solver, batched, gives_multipliers

PARTS = ("P", "q", "r", "A", "b", "G", "h", "lb", "ub")


def float64() -> Any:
    """A context in which JAX computes in float64."""
    return jax.enable_x64(True)


def cached(form: CanonicalForm, key: Any, build: Callable[[], Any]) -> Any:
    """The value under `key`, built at first use."""
    if key not in form.cache:
        form.cache[key] = build()
    return form.cache[key]


def programs(form: CanonicalForm, values: dict[str, np.ndarray], mapped: frozenset[str]) -> QuadraticProgram:
    """The batched program at `values`; the parameters in `mapped` have a leading axis B.

    A part that depends on no mapped parameter keeps a leading axis of 1.
    """
    if not mapped:
        return batched(form.assemble(values))
    fixed = {name: value for name, value in values.items() if name not in mapped}
    moving, leaves, structure = cached(
        form, ("programs", mapped), lambda: _program_function(form, mapped, fixed)
    )
    with float64():
        filled = moving({name: values[name] for name in values})
    first = {name: values[name][0] for name in mapped}
    result = list(_constants(form, fixed, first))
    for i, value in zip(leaves, filled, strict=True):
        result[i] = np.asarray(value)
    return jax.tree_util.tree_unflatten(structure, result)


def _constants(form: CanonicalForm, fixed: dict[str, np.ndarray], first: dict[str, np.ndarray]) -> list[Any]:
    """The leaves of the batched program, those right that depend on `fixed` alone.

    They are the same arrays as at the last call where it had the same values, as in the steps of a training.
    """
    key = "constants", frozenset(first)
    known, leaves = form.cache.get(key, (None, None))
    if known is None or not all(np.array_equal(known[name], value) for name, value in fixed.items()):
        leaves = jax.tree_util.tree_leaves(batched(form.assemble({**fixed, **first})))
        form.cache[key] = {name: np.array(value) for name, value in fixed.items()}, leaves
    return leaves


def _program_function(form: CanonicalForm, mapped: frozenset[str], fixed: dict[str, np.ndarray]) -> Any:
    ones = {name: np.ones(p.shape) for name, p in form.parameters.items()}
    template = form.assemble(ones)
    structure = jax.tree_util.tree_structure(template)
    leaves, position = [], 0
    for part in PARTS:
        count = len(jax.tree_util.tree_leaves(getattr(template, part)))
        if form.depends(part) & mapped:
            leaves += list(range(position, position + count))
        position += count

    def one(values: dict[str, Any]) -> list[Any]:
        flat = jax.tree_util.tree_leaves(form.assemble(values, jnp))
        return [jnp.asarray(flat[i]) for i in leaves]

    axes = {name: 0 if name in mapped else None for name in form.parameters}
    return jax.jit(jax.vmap(one, in_axes=(axes,))), leaves, structure


BLOCKS = 128, 1024, 8192
"""Samples that a device solver is given at once: up to eight times one of these numbers in blocks of it, more
in blocks of the next; below the first in one block of a power of two."""
BLOCK_ENTRIES = 2**25
"""Entries of the KKT matrices of a block."""


def device_solve(form: CanonicalForm, solver: Solver, program: QuadraticProgram) -> RawResult:
    """A device solver on host arrays.

    In blocks of a few sizes, the last one filled up: what is compiled for them serves every batch, and memory
    beside the result is that of a block. The multipliers that an oracle has not take none.
    """
    complete = gives_multipliers(solver)

    def solve(program: QuadraticProgram) -> Any:
        raw = solver(program)
        return raw if complete else (raw.x, raw.status, raw.iterations)

    function = cached(form, ("solve", solver), lambda: jax.jit(solve))
    size = program.batch_size
    width = _block(solver, program)
    parts: list[Any] = []
    for start in range(0, size, width):
        index = np.minimum(np.arange(start, start + width), size - 1)
        with float64():
            raw = function(program if size == width else program.take(index))
        parts.append(jax.tree_util.tree_map(np.asarray, raw))
    if len(parts) > 1 or size < width:
        parts = [jax.tree_util.tree_map(lambda *each: np.concatenate(each)[:size], *parts)]
    found = parts[0]
    return found if complete else _without_multipliers(program, *found)


def _without_multipliers(
    program: QuadraticProgram, x: np.ndarray, status: np.ndarray, iterations: np.ndarray
) -> RawResult:
    def none(width: int, kind: Any = np.float64) -> np.ndarray:
        return np.broadcast_to(np.zeros((), kind), (len(x), width))

    me, mi = program.num_equalities, program.num_inequalities
    nothing = none(me), none(mi), none(program.n), none(mi, bool), none(program.n, np.int8)
    return RawResult(x, *nothing, status, iterations)


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _block(solver: Solver, program: QuadraticProgram) -> int:
    size = program.batch_size
    width = next((w for w in BLOCKS if size < 8 * w), BLOCKS[-1])
    if gives_multipliers(solver):
        order = program.n + program.num_equalities + program.num_inequalities
        width = min(width, _power_of_two(max(1, BLOCK_ENTRIES // order**2) + 1) // 2)
    return min(width, _power_of_two(size))


def residual_jacobian(
    form: CanonicalForm, gradient: Gradient, values: dict[str, Any], coupling: Coupling, raw: RawResult
) -> dict[str, np.ndarray]:
    """∂R/∂θ of one sample: by parameter name, [2n + me + mi, *parameter shape]."""

    def build() -> Any:
        def of(parameters: dict[str, Any], coupling: Coupling, raw: RawResult) -> Any:
            return residual(gradient.program(form.assemble(parameters, jnp)), coupling, raw)

        return jax.jit(jax.jacfwd(of))

    with float64():
        found = cached(form, ("residual", gradient), build)(values, coupling, raw)
    return {name: np.asarray(value) for name, value in found.items()}


def envelope(form: CanonicalForm, values: dict[str, Any], raw: RawResult) -> dict[str, np.ndarray]:
    """∂L/∂θ of one sample at fixed primal and dual solution, by parameter name (minimization form)."""

    def lagrangian(parameters: dict[str, Any], raw: RawResult) -> Any:
        program = form.assemble(parameters, jnp)
        bound = jnp.where(raw.w > 0, program.ub, jnp.where(raw.w < 0, program.lb, 0.0))
        bound = jnp.where(program.is_integer, 0.0, bound)  # integers stay where they are
        return (
            program.objective(raw.x)
            + raw.y @ (program.A.matvec(raw.x) - program.b)
            + raw.z @ (program.G.matvec(raw.x) - program.h)
            + raw.w @ (raw.x - bound)
        )

    with float64():
        found = cached(form, "envelope", lambda: jax.jit(jax.grad(lagrangian)))(values, raw)
    return {name: np.asarray(value) for name, value in found.items()}


def objective_gradient(
    form: CanonicalForm, values: dict[str, Any], x: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """∂f/∂x and ∂f/∂θ of one sample (minimization form)."""

    def objective(x: Any, parameters: dict[str, Any]) -> Any:
        return form.assemble(parameters, jnp).objective(x)

    with float64():
        function = cached(form, "objective gradient", lambda: jax.jit(jax.grad(objective, argnums=(0, 1))))
        in_x, in_parameters = function(x, values)
    return np.asarray(in_x), {name: np.asarray(value) for name, value in in_parameters.items()}
