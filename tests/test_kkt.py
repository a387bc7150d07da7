"""The KKT system against `numpy.linalg.solve` and `numpy.linalg.pinv` on the matrix written out here."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solvers.programs import program, zero

from decigrad import kkt
from decigrad.program import Dense, Diagonal, LowRank, Operator, QuadraticProgram

INF = np.inf
seeds = st.integers(0, 2**32 - 1)
KINDS = ("dense", "diagonal", "low rank")


def curvature(rng: np.random.Generator, kind: str, lanes: int, n: int) -> Operator:
    if kind == "dense":
        root = rng.standard_normal((lanes, n, n))
        return Dense(root @ root.swapaxes(-1, -2) / n + 0.1 * np.eye(n))
    diagonal = rng.uniform(0.5, 2.0, (lanes, n))
    if kind == "diagonal":
        return Diagonal(diagonal)
    return LowRank(diagonal, rng.standard_normal((lanes, 2, n)), rng.uniform(0.1, 2.0, (lanes, 2)))


def draw(
    rng: np.random.Generator, kind: str, batch: int, sizes: tuple[int, int, int], shared: bool
) -> QuadraticProgram:
    n, me, mi = sizes
    lanes = 1 if shared else batch
    A, G = rng.standard_normal((lanes, me, n)), rng.standard_normal((lanes, mi, n))
    return program(curvature(rng, kind, lanes, n), rng.standard_normal((batch, n)), A, G=G)


def compliances(
    rng: np.random.Generator, batch: int, sizes: tuple[int, int, int], soft: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Fewer hard constraints than variables, so that K is regular; the others soft or inactive."""
    n, me, mi = sizes
    kz, kw = np.full((batch, mi), INF), np.full((batch, n), INF)
    if soft:
        kz = np.where(rng.random((batch, mi)) < 0.5, rng.uniform(0.1, 2.0, (batch, mi)), kz)
        kw = np.where(rng.random((batch, n)) < 0.5, rng.uniform(0.1, 2.0, (batch, n)), kw)
    for i in range(batch):
        hard = rng.permutation(mi + n)[: rng.integers(0, max(n - me, 1))]
        kz[i, hard[hard < mi]] = 0.0
        kw[i, hard[hard >= mi] - mi] = 0.0
    return kz, kw


def matrix(p: QuadraticProgram, kz: np.ndarray, kw: np.ndarray, i: int) -> np.ndarray:
    """K of sample i, block by block."""
    one = p.sample(i)
    n, me, mi = p.n, p.num_equalities, p.num_inequalities
    P, A, G = one.P.dense()[0], one.A.matrix[0], one.G.matrix[0]
    a, f = np.isfinite(kz[i]), np.isfinite(kw[i])
    aG, F = a[:, None] * G, np.diag(f.astype(float))
    c, e = np.diag(np.where(a, -kz[i], 1.0)), np.diag(np.where(f, -kw[i], 1.0))
    O = np.zeros
    return np.block(
        [
            [P, A.T, aG.T, F],
            [A, O((me, me)), O((me, mi)), O((me, n))],
            [aG, O((mi, me)), c, O((mi, n))],
            [F, O((n, me)), O((n, mi)), e],
        ]
    )


@settings(max_examples=60)
@given(
    seed=seeds,
    kind=st.sampled_from(KINDS),
    sizes=st.sampled_from([(3, 1, 0), (6, 0, 0), (5, 2, 3), (12, 2, 5), (10, 1, 40), (20, 6, 12)]),
    shared=st.booleans(),
    soft=st.booleans(),
)
def test_agrees_with_a_dense_solution(seed, kind, sizes, shared, soft):
    rng = np.random.default_rng(seed)
    p = draw(rng, kind, 3, sizes, shared)
    kz, kw = compliances(rng, 3, sizes, soft)
    rhs = rng.standard_normal((3, 2 * p.n + p.num_equalities + p.num_inequalities, 2))
    v, singular = kkt.solve(p, kz, kw, rhs)
    for i in range(3):
        K = matrix(p, kz, kw, i)
        expected = np.linalg.solve(K, rhs[i])
        if np.linalg.cond(K) < 1e9:
            assert not singular[i]
            np.testing.assert_allclose(v[i], expected, atol=1e-10 * np.abs(expected).max())
        for k in range(2):
            np.testing.assert_allclose(
                kkt.matvec(p.sample(i), kz[i], kw[i], v[i : i + 1, :, k])[0], K @ v[i, :, k]
            )


@pytest.mark.parametrize("kind", KINDS)
def test_jax_agrees_with_numpy(kind):
    """Regular, dependent and flat samples in one batch, under jit."""
    rng = np.random.default_rng(3)
    sizes = (5, 2, 4)
    p = draw(rng, kind, 6, sizes, kind != "diagonal")
    p.A.matrix[:, 1], p.G.matrix[:, 1] = 2 * p.A.matrix[:, 0], p.G.matrix[:, 0]
    kz, kw = compliances(rng, 6, sizes, soft=False)
    kz[0], kw[1] = 0.0, 0.0
    rhs = rng.standard_normal((6, 16))
    with jax.enable_x64(True):
        v, singular = jax.jit(kkt.solve)(*jax.tree_util.tree_map(jnp.asarray, (p, kz, kw, rhs)))
    expected, flags = kkt.solve(p, kz, kw, rhs)
    np.testing.assert_allclose(v, expected, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_array_equal(singular, flags)


def minimum_norm(K: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    return np.linalg.pinv(K, rcond=1e-11) @ rhs


@settings(max_examples=40)
@given(seed=seeds, kind=st.sampled_from(KINDS), consistent=st.booleans())
def test_dependent_constraints_get_the_least_multipliers(seed, kind, consistent):
    rng = np.random.default_rng(seed)
    A, G = rng.standard_normal((2, 5)), rng.standard_normal((4, 5))
    A = np.concatenate([A, A[:1] - A[1:]])
    G[1], G[2] = 3 * G[0], np.eye(5)[0]
    p = program(curvature(rng, kind, 1, 5), np.zeros((3, 5)), A, G=G)
    kz = np.where(rng.random((3, 4)) < 0.7, 0.0, INF)
    kw = np.where(rng.random((3, 5)) < 0.3, 0.0, INF)
    K = [matrix(p, kz, kw, i) for i in range(3)]
    rhs = rng.standard_normal((3, 17))
    if consistent:
        rhs = np.stack([k @ r for k, r in zip(K, rhs, strict=True)])
    v, singular = kkt.solve(p, kz, kw, rhs)
    assert singular.all()
    for i in range(3):
        expected = minimum_norm(K[i], rhs[i])
        np.testing.assert_allclose(v[i], expected, atol=1e-8 * max(np.abs(expected).max(), 1.0))


def test_directions_without_curvature_stay_at_zero():
    """An LP with tied costs on the simplex: x₀ and x₁ may trade, the derivative does not move them."""
    p = program(zero(3), np.array([[1.0, 1.0, 2.0]]), np.ones((1, 3)), np.ones(1), linear=True)
    kw = np.array([[INF, INF, 0.0]])
    rhs = np.zeros((1, 7))
    rhs[0, :2] = [1.0, -1.0]
    v, singular = kkt.solve(p, np.zeros((1, 0)), kw, rhs)
    assert singular[0]
    np.testing.assert_allclose(v, 0.0, atol=1e-14)
    rhs[0, :4] = [1.0, -1.0, 0.0, 1.0]  # moving the right-hand side moves both alike
    np.testing.assert_allclose(kkt.solve(p, np.zeros((1, 0)), kw, rhs)[0][0, :3], [0.5, 0.5, 0.0], atol=1e-14)


def test_a_vertex_of_a_linear_program_is_regular():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((2, 5))
    p = program(zero(5), rng.standard_normal((1, 5)), A, np.zeros(2), linear=True)
    kz, kw = np.zeros((1, 0)), np.array([[INF, INF, 0.0, 0.0, 0.0]])
    rhs = rng.standard_normal((1, 12))
    v, singular = kkt.solve(p, kz, kw, rhs)
    assert not singular[0]
    np.testing.assert_allclose(v[0], np.linalg.solve(matrix(p, kz, kw, 0), rhs[0]), rtol=1e-9, atol=1e-10)


@settings(max_examples=30)
@given(seed=seeds, weight=st.sampled_from([1e-6, 1e-3, 1.0]), kind=st.sampled_from(KINDS))
def test_weak_curvature_and_bad_scaling_leave_a_small_residual(seed, weight, kind):
    """Rows in units from 1e-3 to 1e3 and P down to 1e-6: the residual is at rounding level."""
    rng = np.random.default_rng(seed)
    n, me, mi = 8, 2, 5
    P = jax.tree_util.tree_map(lambda leaf: leaf * weight, curvature(rng, "dense", 1, n))
    if kind != "dense":
        P = Diagonal(np.full((1, n), weight))
    A = 10.0 ** rng.uniform(-3, 3, (me, 1)) * rng.standard_normal((me, n))
    G = 10.0 ** rng.uniform(-3, 3, (mi, 1)) * rng.standard_normal((mi, n))
    p = program(P, np.zeros((1, n)), A, G=G)
    kz, kw = compliances(rng, 1, (n, me, mi), soft=False)
    rhs = rng.standard_normal((1, 2 * n + me + mi))
    v, _ = kkt.solve(p, kz, kw, rhs)
    K = matrix(p, kz, kw, 0)
    backward = np.abs(K @ v[0] - rhs[0]) / (np.abs(K) @ np.abs(v[0]) + np.abs(rhs[0]).max())
    assert backward.max() < 1e-9


@given(seed=seeds, kind=st.sampled_from(KINDS))
@settings(max_examples=20)
def test_the_solution_operator_is_symmetric(seed, kind):
    """uᵀK⁺v = vᵀK⁺u, in regular and singular samples: forward and reverse mode agree."""
    rng = np.random.default_rng(seed)
    p = draw(rng, kind, 2, (4, 1, 3), True)
    p.G.matrix[:, 1] = p.G.matrix[:, 0]
    kz, kw = np.array([[0.0, 0.0, INF], [0.0, INF, INF]]), np.where(rng.random((2, 4)) < 0.3, 0.0, INF)
    u, v = rng.standard_normal((2, 2, 12))
    left, right = (u * kkt.solve(p, kz, kw, v)[0]).sum(-1), (v * kkt.solve(p, kz, kw, u)[0]).sum(-1)
    np.testing.assert_allclose(left, right, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_with_nan_stays_alone(kind):
    rng = np.random.default_rng(1)
    p = draw(rng, kind, 3, (4, 1, 2), False)
    kz, kw = compliances(rng, 3, (4, 1, 2), soft=False)
    rhs = rng.standard_normal((3, 11))
    good, _ = kkt.solve(p, kz, kw, rhs)
    p.A.matrix[1, 0, 0] = np.nan
    v, singular = kkt.solve(p, kz, kw, rhs)
    assert np.isnan(v[1]).any()
    assert not singular[1]
    np.testing.assert_allclose(v[[0, 2]], good[[0, 2]], rtol=1e-12, atol=1e-13)


def test_shared_arguments_broadcast():
    rng = np.random.default_rng(2)
    p = draw(rng, "dense", 1, (4, 1, 2), True)
    kz, kw = np.array([[0.0, INF]]), np.full((1, 4), INF)
    rhs = rng.standard_normal((5, 11))
    v, singular = kkt.solve(p, kz, kw, rhs)
    assert singular.shape == (5,)
    np.testing.assert_allclose(v, np.linalg.solve(matrix(p, kz, kw, 0), rhs.T).T, rtol=1e-9, atol=1e-11)
