"""Functions and modules of other libraries as predictors: plain JAX callables, Flax Linen and Flax NNX.

One mechanism for all: a hashable `forward(params, fixed, features)`, the arrays that are trained, and those
that are not. Equinox modules need none of this: they are callable pytrees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from decigrad.compiled import float64
from decigrad.data import Dataset
from decigrad.errors import ModelError
from decigrad.predictors.protocol import (
    UNSCALED,
    Outputs,
    Recipe,
    Scaled,
    constant,
    is_float,
    matched,
    named,
    pooled,
    scaling,
)


class CallablePredictor(Scaled):
    """A function of parameters and features between standardized inputs and outputs."""

    params: Any
    fixed: Any
    forward: Callable[[Any, Any, Any], Any] = eqx.field(static=True)
    batched: bool = eqx.field(static=True)

    def inputs(self, features: Any) -> Any:
        """Standardized, in the shape of the features."""
        return super().inputs(features).reshape(jnp.shape(features))

    def raw(self, inputs: Any) -> Any:
        """The outputs of the function in a row, in the order of the predicted parameters."""
        outputs = tuple((name, ()) for name, _ in self.outputs) if self.shared else self.outputs
        found = self.forward(self.params, self.fixed, inputs[None] if self.batched else inputs)
        if self.batched:
            found = jax.tree_util.tree_map(lambda a: a[0], found)
        by_name = matched(named(found, outputs), outputs)
        return jnp.concatenate([jnp.reshape(by_name[name], -1) for name, _ in outputs])


@dataclass(frozen=True)
class _Function:
    apply: Callable[[Any, Any], Any]

    def __call__(self, params: Any, fixed: Any, features: Any) -> Any:
        return self.apply(params, features)


@dataclass(frozen=True)
class _Linen:
    module: Any

    def __call__(self, params: Any, fixed: Any, features: Any) -> Any:
        return self.module.apply({**fixed, "params": params}, features)


@dataclass(frozen=True)
class _NNX:
    graph: Any

    def __call__(self, params: Any, fixed: Any, features: Any) -> Any:
        from flax import nnx

        return nnx.merge(self.graph, params, fixed)(features)


@dataclass(frozen=True, eq=False)
class JAXPredictor(Recipe):
    """A JAX function with its parameters as a predictor.

        dg.JAXPredictor(apply, params)        # apply(params, features) -> {"cost": ...}, or an array

    `apply` sees the features of one sample and returns the predicted parameters by name, or one array when
    one parameter is predicted. The floating-point arrays in `params` are trained, in float64.

    Args:
        apply: a pure, hashable function, such as one of a module, or a bound `module.apply`.
        params: any pytree.
        standardize: `apply` maps standardized features to standardized parameters, as an `MLP` does inside.
            False: it is a function of the data as they are, such as one that was trained before.
        batched: `apply` wants a leading batch axis (it gets one of length 1, and is vectorized).
        shared: `apply` is of one item's features [p] and gives one number for each predicted parameter, which
            has the shape [items] of the features [items, p].
    """

    apply: Callable[[Any, Any], Any]
    params: Any
    standardize: bool = True
    batched: bool = False
    shared: bool = False

    def init(self, data: Dataset, outputs: Outputs, seed: int = 0) -> CallablePredictor:
        """The function at its parameters, with the scaling of the data."""
        return _made(self, _Function(self.apply), self.params, None, data, outputs)


@dataclass(frozen=True, eq=False)
class FlaxPredictor(Recipe):
    """A Flax module, Linen or NNX, as a predictor.

        dg.FlaxPredictor(nn.Dense(3))                       # flax.linen: initialized for the data by the seed
        dg.FlaxPredictor(nnx.Linear(5, 3, rngs=nnx.Rngs(0)))

    The module is called with the features alone, so whatever has a mode (dropout, batch normalization) must
    be set to inference in the module. Parameters are trained; other variables keep their values.

    Args:
        module: it maps one sample's features to the predicted parameters by name, or to one array.
        variables: of a Linen module, in place of a fresh initialization: {"params": ...}.
        standardize, batched, shared: as in `JAXPredictor`.
    """

    module: Any
    variables: Any = None
    standardize: bool = True
    batched: bool = False
    shared: bool = False

    def init(self, data: Dataset, outputs: Outputs, seed: int = 0) -> CallablePredictor:
        """The module with its parameters, and the scaling of the data."""
        try:
            from flax import linen, nnx
        except ImportError:
            raise ImportError("FlaxPredictor needs flax: pip install 'decigrad[flax]'") from None
        if isinstance(self.module, linen.Module):
            variables = self._initialized(data, seed) if self.variables is None else self.variables
            fixed = {name: part for name, part in variables.items() if name != "params"}
            return _made(self, _Linen(self.module), variables.get("params", {}), fixed, data, outputs)
        if not isinstance(self.module, nnx.Module):
            raise ModelError(
                f"FlaxPredictor needs a flax.linen or flax.nnx module, got {type(self.module).__name__}"
            )
        if self.variables is not None:
            raise ModelError("FlaxPredictor: an NNX module holds its variables itself; leave variables out")
        graph, params, fixed = nnx.split(self.module, nnx.Param, ...)
        return _made(self, _NNX(graph), params, fixed, data, outputs)

    def _initialized(self, data: Dataset, seed: int) -> Any:
        shape = data.features.shape[-1:] if self.shared else data.features.shape[1:]
        with float64():
            sample = jnp.zeros((1, *shape) if self.batched else shape)
            return self.module.init(jax.random.key(seed), sample)


def _made(
    recipe: JAXPredictor | FlaxPredictor,
    forward: Any,
    params: Any,
    fixed: Any,
    data: Dataset,
    outputs: Outputs,
) -> CallablePredictor:
    try:
        hash(forward)
    except TypeError as error:
        raise ModelError(
            f"{type(recipe).__name__}: the function cannot be hashed ({error}), so nothing could be compiled "
            f"for it: write its settings as tuples instead of lists, in a frozen dataclass"
        ) from None
    if recipe.shared:
        data = pooled(data, outputs, type(recipe).__name__)
    with float64():
        params = jax.tree_util.tree_map(lambda a: jnp.asarray(a, float) if is_float(a) else a, params)
    return CallablePredictor(
        *(scaling(data, outputs) if recipe.standardize else UNSCALED),
        outputs=outputs,
        params=params,
        fixed=constant(fixed),
        forward=forward,
        batched=recipe.batched,
        shared=recipe.shared,
    )
