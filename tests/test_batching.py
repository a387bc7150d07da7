"""One call a batch, on the host or the device, with what is shared left shared."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decigrad import batching


@pytest.fixture(autouse=True)
def float64() -> Any:
    with jax.enable_x64(True):
        yield


def test_a_shared_argument_reaches_the_host_once() -> None:
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def function(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
        seen.append((matrix.shape, vector.shape))
        return (matrix @ vector[..., None])[..., 0]

    result = jax.ShapeDtypeStruct((2,), np.float64)
    M = jnp.arange(4.0).reshape(2, 2)
    out = jax.vmap(lambda v: batching.host_call(function, result, M, v))(jnp.ones((3, 2)))
    np.testing.assert_array_equal(out, np.tile([1.0, 5.0], (3, 1)))
    assert seen == [((1, 2, 2), (3, 2))]


def test_nested_maps_are_one_flat_batch() -> None:
    seen: list[tuple[int, ...]] = []

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        seen.append(np.broadcast_shapes(a.shape, b.shape))
        return np.broadcast_to(a * b, seen[-1])

    result = jax.ShapeDtypeStruct((), np.float64)
    a, b = jnp.arange(3.0), jnp.arange(4.0)
    pairs = jax.vmap(lambda x: jax.vmap(lambda y: batching.host_call(product, result, x, y))(b))(a)
    np.testing.assert_array_equal(pairs, np.outer(a, b))
    assert seen == [(12,)]


def _outer_product(a: Any, b: Any) -> Any:
    return a * b


def test_device_calls_collect_maps_too() -> None:
    a, b = jnp.arange(3.0), jnp.arange(4.0)
    pairs = jax.vmap(lambda x: jax.vmap(lambda y: batching.device_call(_outer_product, x, y))(b))(a)
    np.testing.assert_array_equal(pairs, np.outer(a, b))
    np.testing.assert_array_equal(batching.device_call(_outer_product, a[1], b[2]), 2.0)


def test_float64_passes_where_its_scope_does_not_hold() -> None:
    """XLA may call back from a thread of its own, where the caller's float64 scope is not set."""
    result = {"square": jax.ShapeDtypeStruct((2,), np.float64), "sign": jax.ShapeDtypeStruct((2,), np.int8)}

    def function(v: np.ndarray) -> dict[str, np.ndarray]:
        assert v.dtype == np.float64
        return {"square": v**2, "sign": np.sign(v)}

    v = jnp.asarray([1.0 / 3.0, -1e-200])
    compiled = jax.jit(lambda v: batching.host_call(function, result, v)).lower(v).compile()
    with jax.enable_x64(False):
        found = jax.block_until_ready(compiled(v))
    assert found["square"].dtype == np.float64
    assert np.asarray(found["square"])[0] == (1.0 / 3.0) ** 2
    np.testing.assert_array_equal(np.asarray(found["sign"]), [1, -1])


def test_one_visible_core_refuses_large_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching.os, "sched_getaffinity", lambda _pid: {0}, raising=False)
    monkeypatch.delenv("NPROC", raising=False)
    result = jax.ShapeDtypeStruct((), np.float64)
    with pytest.raises(RuntimeError, match="NPROC=2"):
        batching.host_call(lambda v: v.sum(-1), result, jnp.ones(5000))
    assert float(batching.host_call(lambda v: v.sum(-1), result, jnp.ones(5))) == 5.0
