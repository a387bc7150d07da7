"""Certificates, conflicts, rays and curvature, each verified by the algebra that defines it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solvers.programs import (
    boxed,
    dense,
    grid,
    infeasible,
    knapsack,
    nonconvex,
    program,
    semidefinite,
    transport,
    unbounded,
    zero,
)
from solvers.reference import clarabel_solution

from decigrad.program import Dense, Diagonal, LowRank, QuadraticProgram, Status
from decigrad.solvers import HiGHS
from decigrad.solvers.diagnosis import Diagnosis, confirm, diagnose

seeds = given(seed=st.integers(0, 2**32 - 1))


def assert_proof(p: QuadraticProgram, found: Diagnosis) -> None:
    """Aᵀy + Gᵀz + w = 0, signs, and a negative gap: no x can satisfy the constraints."""
    proof = found.certificate
    assert proof is not None
    assert (proof.z >= 0).all()
    assert (proof.lower >= 0).all()
    assert (proof.upper >= 0).all()
    A, G, h, lb, ub = p.A.matrix[0], p.G.matrix[0], p.h[0], p.lb[0], p.ub[0]
    residual = A.T @ proof.y + G.T @ proof.z + proof.w
    assert np.abs(residual).max() < 1e-11
    for multiplier, side in ((proof.z, h), (proof.lower, lb), (proof.upper, ub)):
        assert not multiplier[~np.isfinite(side)].any()
    terms = [p.b[0] @ proof.y] + [
        sign * (multiplier[multiplier > 0] * side[multiplier > 0]).sum()
        for sign, multiplier, side in ((1, proof.z, h), (-1, proof.lower, lb), (1, proof.upper, ub))
    ]
    assert sum(terms) == pytest.approx(proof.gap, rel=1e-9)
    assert proof.gap < 0
    largest = max(np.abs(v).max(initial=0) for v in (proof.y, proof.z, proof.lower, proof.upper))
    assert largest == pytest.approx(1.0)
    support = {("equality", i) for i in np.flatnonzero(proof.y)}
    support |= {("inequality", i) for i in np.flatnonzero(proof.z)}
    support |= {("lower bound", j) for j in np.flatnonzero(proof.lower)}
    support |= {("upper bound", j) for j in np.flatnonzero(proof.upper)}
    assert support == set(found.conflict)


def restricted(p: QuadraticProgram, elements: list[tuple[str, int]]) -> QuadraticProgram:
    """The constraints `elements` alone, with a zero objective."""
    kept = {
        kind: [i for k, i in elements if k == kind]
        for kind in ("equality", "inequality", "lower bound", "upper bound")
    }
    lb, ub = np.full_like(p.lb, -np.inf), np.full_like(p.ub, np.inf)
    lb[0, kept["lower bound"]] = p.lb[0, kept["lower bound"]]
    ub[0, kept["upper bound"]] = p.ub[0, kept["upper bound"]]
    return replace(
        p,
        P=zero(p.n),
        q=np.zeros_like(p.q),
        A=Dense(p.A.matrix[:, kept["equality"]]),
        b=p.b[:, kept["equality"]],
        G=Dense(p.G.matrix[:, kept["inequality"]]),
        h=p.h[:, kept["inequality"]],
        lb=lb,
        ub=ub,
        linear=True,
    )


def assert_irreducible(p: QuadraticProgram, found: Diagnosis) -> None:
    """Together they clash; without any one of them they do not."""
    assert found.minimal
    everything = list(found.conflict)
    assert HiGHS()(restricted(p, everything)).status[0] == Status.PRIMAL_INFEASIBLE
    for k in range(len(everything)):
        rest = restricted(p, everything[:k] + everything[k + 1 :])
        assert HiGHS()(rest).status[0] == Status.OPTIMAL
        if not p.integer:
            assert "Infeasible" not in clarabel_solution(rest)[0]


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), linear=st.booleans())
def test_a_hidden_conflict_is_found(seed, linear):
    p = infeasible(np.random.default_rng(seed), 6, linear)
    found = diagnose(p, Status.PRIMAL_INFEASIBLE)
    assert found.status is Status.PRIMAL_INFEASIBLE
    assert set(found.conflict) == {("equality", 0), ("inequality", 0), ("lower bound", 1)}
    assert_proof(p, found)
    assert_irreducible(p, found)


@settings(max_examples=15)
@seeds
def test_random_conflicts(seed):
    """Many random half-spaces, badly scaled: usually infeasible, with several conflicts to choose from."""
    rng = np.random.default_rng(seed)
    n, m = 4, 16
    scale = 10.0 ** rng.uniform(-3, 3, (m, 1))
    G, h = scale * rng.standard_normal((m, n)), scale[:, 0] * (rng.standard_normal(m) - 0.8)
    A = rng.standard_normal((1, n))
    p = program(zero(n), rng.standard_normal((1, n)), A, np.ones(1), G, h, lb=-2.0, ub=2.0, linear=True)
    found = diagnose(p, Status.PRIMAL_INFEASIBLE)
    status = clarabel_solution(p)[0]
    if found.status is Status.PRIMAL_INFEASIBLE:
        assert status == "PrimalInfeasible"
        assert_proof(p, found)
        assert_irreducible(p, found)
        assert len(found.conflict) <= n + 1  # Helly: an irreducible conflict has at most n + 1 members
    else:
        assert status == "Solved"
        assert found.status is Status.NUMERICAL_ERROR  # the claim of infeasibility has no proof


def test_crossed_bounds_and_an_impossible_zero_row():
    p = program(Diagonal(np.ones((1, 3))), np.zeros((1, 3)), lb=np.array([0.0, 2.0, 0.0]), ub=1.0)
    found = diagnose(p, Status.PRIMAL_INFEASIBLE)
    assert set(found.conflict) == {("lower bound", 1), ("upper bound", 1)}
    assert_proof(p, found)
    p = program(Diagonal(np.ones((1, 2))), np.zeros((1, 2)), G=np.zeros((1, 2)), h=-np.ones(1))
    found = diagnose(p, Status.PRIMAL_INFEASIBLE)
    assert found.conflict == (("inequality", 0),)
    assert_proof(p, found)


def test_a_clash_below_rounding_is_none():
    """x ≥ 1 and x ≤ 1 − 1e-13 are met to the accuracy of the data."""
    p = program(
        Diagonal(np.ones((1, 1))), np.zeros((1, 1)), G=np.ones((1, 1)), h=np.array([1 - 1e-13]), lb=1.0
    )
    assert confirm(p, Status.OPTIMAL) is Status.OPTIMAL
    clearly = replace(p, h=np.array([[1 - 1e-6]]))
    assert confirm(clearly, Status.OPTIMAL) is Status.PRIMAL_INFEASIBLE


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), linear=st.booleans())
def test_rays_of_unbounded_programs(seed, linear):
    p = unbounded(np.random.default_rng(seed), 6, linear)
    found = diagnose(p, Status.UNBOUNDED)
    assert found.status is Status.UNBOUNDED
    d = found.ray
    assert d is not None
    assert np.abs(d).max() == pytest.approx(1.0)
    assert p.q[0] @ d < -1e-6
    assert np.abs(p.P.matvec(d[None])).max() < 1e-9
    assert (p.G.matrix[0] @ d < 1e-9).all()
    assert (d[np.isfinite(p.lb[0])] >= 0).all()
    assert (d[np.isfinite(p.ub[0])] <= 0).all()


def test_the_null_space_of_a_dense_matrix_is_searched():
    rng = np.random.default_rng(0)
    p = semidefinite(rng, 1)
    free = replace(p, lb=np.full((1, p.n), -np.inf), ub=np.full((1, p.n), np.inf))
    found = diagnose(free, Status.ITERATION_LIMIT)
    assert found.status is Status.UNBOUNDED
    assert np.abs(p.P.matvec(found.ray[None])).max() < 1e-9
    assert abs(found.ray.sum()) < 1e-9
    assert confirm(p, Status.OPTIMAL) is Status.OPTIMAL


@pytest.mark.parametrize("claimed", [Status.PRIMAL_INFEASIBLE, Status.UNBOUNDED, Status.NUMERICAL_ERROR])
def test_mistaken_claims_are_corrected(claimed):
    """A dual method sees "dual infeasible or primal infeasible" and cannot always tell which."""
    for linear in (False, True):
        rng = np.random.default_rng(1)
        assert diagnose(unbounded(rng, linear=linear), claimed).status is Status.UNBOUNDED
        assert confirm(infeasible(rng, linear=linear), claimed) is Status.PRIMAL_INFEASIBLE
    both = unbounded(np.random.default_rng(2), linear=True)
    both = replace(both, h=np.array([[-1e6, 5.0]]))  # neither primal nor dual feasible: infeasible counts
    assert diagnose(both, claimed).status is Status.PRIMAL_INFEASIBLE
    for make in (dense, boxed, transport, grid):
        assert diagnose(make(rng, 1), claimed).status is Status.NUMERICAL_ERROR


@pytest.mark.parametrize("claimed", [Status.ITERATION_LIMIT, Status.TIME_LIMIT, Status.OPTIMAL])
def test_other_claims_stand(claimed):
    assert diagnose(dense(np.random.default_rng(0), 1), claimed) == Diagnosis(claimed)


def test_negative_curvature():
    p = nonconvex(np.random.default_rng(0))
    found = diagnose(p, Status.NONCONVEX)
    assert found.status is Status.NONCONVEX
    assert found.eigenvalue == pytest.approx(-0.3)
    v = found.eigenvector
    np.testing.assert_allclose(p.P.matrix[0] @ v, found.eigenvalue * v, atol=1e-13)
    low = LowRank(np.ones((1, 4)), np.ones((1, 1, 4)), np.array([[-1.0]]))
    assert diagnose(replace(p, P=low, q=np.zeros((1, 4))), Status.OPTIMAL).eigenvalue == pytest.approx(-3.0)


def test_invalid_data():
    p = dense(np.random.default_rng(0), 1)
    assert diagnose(replace(p, q=np.full_like(p.q, np.nan)), Status.INVALID_DATA) == Diagnosis(
        Status.INVALID_DATA
    )


def test_conflicts_among_integers():
    """2 x₀ + 2 x₁ = 1 has no integer solution; the other constraints are innocent."""
    A = np.array([[2.0, 2.0, 0.0], [0.0, 1.0, 1.0]])
    G = np.array([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0]])
    p = program(
        zero(3),
        np.ones((1, 3)),
        A,
        np.ones(2),
        G,
        np.full(2, 9.0),
        lb=0.0,
        ub=5.0,
        integer=(0, 1, 2),
        linear=True,
    )
    found = diagnose(p, Status.PRIMAL_INFEASIBLE)
    assert found.status is Status.PRIMAL_INFEASIBLE
    assert found.certificate is None
    assert found.conflict == (("equality", 0),)
    assert_irreducible(p, found)


def test_a_relaxation_that_is_infeasible_proves_it_for_integers_too():
    p = knapsack(np.random.default_rng(0), 1, 6)
    p = replace(p, A=Dense(np.ones((1, 1, 6))), b=np.array([[6.0]]))
    found = diagnose(p, Status.PRIMAL_INFEASIBLE)
    assert_proof(p, found)
    assert_irreducible(replace(p, integer=()), found)


def test_takes_one_program():
    with pytest.raises(ValueError, match="batch of 3"):
        diagnose(dense(np.random.default_rng(0), 3), Status.OPTIMAL)
