"""One call per batch: batch-first functions under `jax.vmap`, on the device or on the host.

Solvers and the KKT kernel take batches whose leaves have a leading axis of size B or 1 (shared). Under any
nesting of `vmap`, `device_call` and `host_call` collect the mapped axes, flatten them into one batch, leave
what is not mapped shared, and call the function once.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

_ONE_CORE_LIMIT = 4096  # entries; larger arrays can block a callback for good when one core is visible


def device_call(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function` on unbatched arguments; it is traced with a leading batch axis.

    `function` must be hashable (a frozen dataclass or a module-level function); its outputs have the
    full batch axis.
    """
    return _collecting(function, 0)(*arguments)


@functools.lru_cache(maxsize=256)
def _collecting(function: Callable[..., Any], depth: int) -> Callable[..., Any]:
    def body(*arguments: Any) -> Any:
        lead = _lead(arguments, depth)
        flat = jax.tree_util.tree_map(lambda a: _flattened(a, lead, depth, jnp), arguments)
        return jax.tree_util.tree_map(lambda a: a.reshape(lead + a.shape[1:]), function(*flat))

    call = custom_vmap(body)

    @call.def_vmap
    def rule(axis_size: int, mapped: Any, *arguments: Any) -> Any:
        expanded = jax.tree_util.tree_map(
            lambda a, m: a if m else jnp.asarray(a)[None], arguments, tuple(mapped)
        )
        if not any(jax.tree_util.tree_leaves(mapped)):
            expanded = jax.tree_util.tree_map(
                lambda a: jnp.broadcast_to(a, (axis_size, *a.shape[1:])), expanded
            )
        out = _collecting(function, depth + 1)(*expanded)
        return out, jax.tree_util.tree_map(lambda _: True, out)

    return call


def host_call(function: Callable[..., Any], result: Any, *arguments: Any) -> Any:
    """`function` on the host, in float64 NumPy, once a batch; `result` is the unbatched shape and dtype tree.

    Float64 travels as pairs of 32-bit words: a large computation calls back from another thread, where a
    float64 scope of the caller does not hold, and JAX would round what passes to float32.

    Raises:
        RuntimeError: at trace time, when one core is visible and the arrays are large: such a callback
            can block for good. Set NPROC=2 before JAX is imported, or call the layer outside `jit`.
    """
    structure = jax.tree_util.tree_structure(arguments)
    leaves = [jnp.asarray(a) for a in jax.tree_util.tree_leaves(arguments)]
    _refuse_one_core(leaves)
    ranks = tuple(leaf.ndim for leaf in leaves)
    wide = tuple(leaf.dtype == np.float64 for leaf in leaves)
    sent = [
        jax.lax.bitcast_convert_type(a, jnp.uint32) if w else a for a, w in zip(leaves, wide, strict=True)
    ]
    words = jax.tree_util.tree_map(
        lambda r: jax.ShapeDtypeStruct((*r.shape, 2), np.uint32) if r.dtype == np.float64 else r, result
    )

    def on_host(*given: Any) -> Any:
        arrays = [_read(np.asarray(a), w) for a, w in zip(given, wide, strict=True)]
        depth = max((a.ndim - r for a, r in zip(arrays, ranks, strict=True)), default=0)
        lead = _lead(arrays, depth)
        flat = [_flattened(a, lead, depth, np) for a in arrays]
        flat = [a.astype(np.float64) if a.dtype == np.float32 else a for a in flat]
        out = function(*jax.tree_util.tree_unflatten(structure, flat))

        def write(a: Any, r: Any) -> np.ndarray:
            array = np.array(np.asarray(a).reshape(lead + r.shape), dtype=r.dtype, order="C")
            return array[..., None].view(np.uint32) if r.dtype == np.float64 else array

        return jax.tree_util.tree_map(write, out, result)

    answer = jax.pure_callback(on_host, words, *sent, vmap_method="expand_dims")
    return jax.tree_util.tree_map(
        lambda a, r: jax.lax.bitcast_convert_type(a, jnp.float64) if r.dtype == np.float64 else a,
        answer,
        result,
    )


def host_batch(function: Callable[..., Any], result: Any, *arguments: Any) -> Any:
    """`host_call` where the batch is an axis already: all leaves have a leading axis of size B or 1."""
    lead = max(a.shape[0] for a in jax.tree_util.tree_leaves(arguments))
    single = jax.tree_util.tree_map(lambda a: a if a.shape[0] == lead > 1 else a[0], arguments)
    if lead == 1:
        return jax.tree_util.tree_map(lambda a: a[None], host_call(function, result, *single))
    axes = jax.tree_util.tree_map(lambda a: 0 if a.shape[0] == lead else None, arguments)

    def one(*given: Any) -> Any:
        return host_call(function, result, *given)

    return jax.vmap(one, in_axes=axes)(*single)


_share: int | None = None


def share_of_cores(count: int) -> None:
    """This process is one of several workers and may use so many cores."""
    global _share
    _share = count


def cores() -> int:
    """Processor cores that this process may use."""
    if _share is not None:
        return _share
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def may_block(*arguments: Any) -> bool:
    """Whether a callback with these arrays can block for good: one core is visible, and they are large."""
    alone = cores() == 1 and int(os.environ.get("NPROC", "1")) <= 1
    return alone and max((a.size for a in jax.tree_util.tree_leaves(arguments)), default=0) > _ONE_CORE_LIMIT


def _read(array: np.ndarray, wide: bool) -> np.ndarray:
    return np.ascontiguousarray(array).view(np.float64)[..., 0] if wide else array


def _lead(arguments: Any, depth: int) -> tuple[int, ...]:
    shapes = [a.shape[:depth] for a in jax.tree_util.tree_leaves(arguments)]
    return np.broadcast_shapes(*shapes) if shapes else ()


def _flattened(a: Any, lead: tuple[int, ...], depth: int, xp: Any) -> Any:
    event = a.shape[depth:]
    if all(size == 1 for size in a.shape[:depth]):
        return a.reshape((1, *event))
    return xp.broadcast_to(a, lead + event).reshape((math.prod(lead), *event))


def _refuse_one_core(leaves: list[Any]) -> None:
    if may_block(leaves):
        raise RuntimeError(
            "a host solver inside jit can block for good when one core is visible and arrays are large: set "
            "NPROC=2 before importing jax, call the layer outside jit, or use solver='interior-point'"
        )
