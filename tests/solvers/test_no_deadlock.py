"""Batched LAPACK calls that XLA may run at once can block each other for good: none may be independent."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import pytest
from solvers import programs

import decigrad as dg
from decigrad import kkt
from decigrad.program import QuadraticProgram
from decigrad.solvers.interior_point import InteriorPoint

RNG = np.random.default_rng(0)
LARGE = {
    "dense": lambda: programs.dense(RNG, 8, 50, 10, 50),
    "everything varies": lambda: programs.everything_varies(RNG, 8),
    "low rank": lambda: programs.low_rank(RNG, 8, 80),
    "grid": lambda: programs.FAMILIES["grid"](RNG, 8),
}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def unordered(text: str) -> list[tuple[str, str]]:
    """Pairs of instructions of one computation that call LAPACK, with neither depending on the other."""
    computations: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if opened := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            current = computations.setdefault(opened[1], {})
        elif stated := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)", line):
            current[stated[1]] = stated[2]

    def calls(instruction: str) -> bool:
        if "lapack_" in instruction:
            return True
        inside = re.findall(r"%([\w.\-]+)", instruction)
        return any(calls(i) for name in inside if name in computations for i in computations[name].values())

    found = []
    for body in computations.values():
        before: dict[str, set[str]] = {}
        for name, instruction in body.items():  # operands come first in a scheduled computation
            operands = [o for o in re.findall(r"%([\w.\-]+)", instruction) if o in before]
            before[name] = set(operands).union(*(before[o] for o in operands))
        callers = [name for name, instruction in body.items() if calls(instruction)]
        found += [(a, b) for a, b in pairwise(callers) if a not in before[b]]
    return found


def compiled(function: Callable[..., Any], *arguments: Any) -> str:
    return jax.jit(function).lower(*arguments).compile().as_text()


def test_independent_calls_are_seen():
    def both(a, b):
        return jax.numpy.linalg.cholesky(a), jax.numpy.linalg.cholesky(b)

    def chained(a, b):
        first = jax.numpy.linalg.cholesky(a)
        return first, jax.numpy.linalg.cholesky(kkt.after(b, first))

    stack = np.broadcast_to(np.eye(40), (8, 40, 40))
    assert len(unordered(compiled(both, stack, 2.0 * stack))) == 1
    assert not unordered(compiled(chained, stack, 2.0 * stack))


@pytest.mark.parametrize("family", LARGE)
def test_the_interior_point_runs_one_lapack_call_at_a_time(family):
    text = compiled(InteriorPoint(), LARGE[family]())
    assert "lapack_" in text
    assert not unordered(text)


@pytest.mark.parametrize("family", ["dense", "low rank"])
@pytest.mark.parametrize("hard", [True, False])
def test_the_kernel_runs_one_lapack_call_at_a_time(family, hard):
    p: QuadraticProgram = LARGE[family]()
    kz = np.where(RNG.random((8, p.num_inequalities)) < 0.3, 0.0, np.inf)
    kw = np.where(RNG.random((8, p.n)) < 0.3, 0.0, np.inf)
    rhs = RNG.standard_normal((8, 2 * p.n + p.num_equalities + p.num_inequalities))
    assert not unordered(compiled(partial(kkt.solve, hard=hard), p, kz, kw, rhs))


def test_a_gradient_through_a_layer_runs_one_lapack_call_at_a_time():
    m = dg.Model()
    x, c = m.continuous("x", 40, lb=0.0), m.parameter("c", shape=40)
    root = RNG.standard_normal((40, 40))
    m.minimize(c @ x + 0.5 * dg.quad_form(x, root @ root.T / 40 + np.eye(40)))
    m.subject_to(dg.sum(x) == 1.0)
    layer = dg.DecisionLayer(m, solver="interior-point")
    costs = RNG.standard_normal((8, 40))
    text = compiled(jax.grad(lambda c: (layer({"c": c})["x"] ** 2).sum()), costs)
    assert "lapack_" in text
    assert not unordered(text)
