"""What a predictor is: a callable pytree from the features of one sample to the predicted parameters.

A recipe (`Linear`, `MLP`, `CNN`, …) makes one for the data at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from decigrad.compiled import float64
from decigrad.data import Dataset, Scaling
from decigrad.errors import ModelError

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer

Outputs = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and shapes of the predicted parameters, in order."""


class Recipe:
    """What `fit` makes a predictor of, once it sees the data."""

    def init(self, data: Dataset, outputs: Outputs, seed: int = 0) -> Any:
        """A predictor for the data; the same seed gives the same bits."""
        raise NotImplementedError


class Scaled(eqx.Module):
    """Standardized inputs and outputs around a function; None where nothing is scaled. Not trained: NumPy.

    With `shared` the function is of one item: features [*items, p] give one prediction for each item and
    parameter [*items], by the same weights.
    """

    mean: Any
    spread: Any
    shift: Any
    scale: Any
    outputs: Outputs = eqx.field(static=True)
    shared: bool = eqx.field(static=True, kw_only=True, default=False)

    def raw(self, inputs: Any) -> Any:
        """The outputs [m] in standardized units, for standardized inputs."""
        raise NotImplementedError

    def __call__(self, features: Any) -> dict[str, Any]:
        if not self.shared:
            return self.split(self._scaled(features))
        items = jnp.reshape(features, (-1, features.shape[-1]))
        return self.split(jax.vmap(self._scaled)(items).T.reshape(-1))

    def _scaled(self, features: Any) -> Any:
        flat = self.raw(self.inputs(features))
        return flat if self.shift is None else self.shift + self.scale * flat

    def inputs(self, features: Any) -> Any:
        """Features flattened and standardized."""
        flat = jnp.reshape(features, -1)
        if self.mean is None:
            return flat
        if flat.shape != self.mean.shape:  # one feature would be broadcast
            raise ModelError(f"the predictor was made for {self.mean.size} features, got {flat.size}")
        return (flat - self.mean) / self.spread

    def split(self, flat: Any) -> dict[str, Any]:
        """Parameters by name, of all of them in a row."""
        found, start = {}, 0
        for name, shape in self.outputs:
            size = int(np.prod(shape, dtype=int))
            found[name] = flat[start : start + size].reshape(shape)
            start += size
        return found


def size_of(outputs: Outputs, shared: bool = False) -> int:
    """Numbers that are predicted for a sample; with `shared`, for an item."""
    return len(outputs) if shared else sum(int(np.prod(shape, dtype=int)) for _, shape in outputs)


def pooled(data: Dataset, outputs: Outputs, who: str) -> Dataset:
    """All items of all samples as samples: features [B, *items, p] and targets [B, *items]."""
    items = data.features.shape[1:-1]
    if not items or any(shape != items for _, shape in outputs):
        raise ModelError(
            f"{who}(shared=True) needs features [samples, items, p] and predicted parameters [items]; "
            f"got features {data.features.shape} and {', '.join(f'{n!r} {s}' for n, s in outputs)}"
        )
    flat = data.features.reshape(-1, data.features.shape[-1])
    targets = {name: data.targets[name].reshape(-1) for name, _ in outputs}
    return Dataset(flat, targets=targets, weights=np.repeat(data.weights, np.prod(items, dtype=int)))


def scaling(data: Dataset, outputs: Outputs) -> tuple[Any, Any, Any, Any]:
    """Mean and spread of the flattened features, shift and scale of the flattened targets."""
    s = Scaling.of(data, [name for name, _ in outputs])
    return s.mean, s.spread, s.shift, s.scale


UNSCALED: tuple[Any, Any, Any, Any] = (None, None, None, None)


def is_float(leaf: Any) -> bool:
    """Whether it is an array of floating-point numbers."""
    return isinstance(leaf, np.ndarray | jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)


def constant(tree: Any) -> Any:
    """The same pytree with nothing to train: its floating-point arrays are NumPy's, in float64."""
    return jax.tree_util.tree_map(lambda a: np.asarray(a, np.float64) if is_float(a) else a, tree)


def activation_named(who: str, name: str) -> Any:
    """A function of `jax.nn`."""
    if not hasattr(jax.nn, name):
        raise ModelError(f"{who}: jax.nn has no activation {name!r}")
    return getattr(jax.nn, name)


def outputs_of(layer: DecisionLayer) -> Outputs:
    """Names and shapes of the layer's predicted parameters."""
    return tuple((name, layer.parameters[name].shape) for name in layer.predicts)


def initialized(predictor: Any, layer: DecisionLayer, data: Dataset, seed: int) -> Any:
    """The predictor itself, or what its recipe makes of the data; its outputs are checked.

    Raises:
        ModelError: not callable, or outputs that do not match the predicted parameters.
    """
    outputs = outputs_of(layer)
    made = predictor.init(data, outputs, seed) if isinstance(predictor, Recipe) else predictor
    if not callable(made):
        kind = type(predictor).__name__
        raise ModelError(f"a predictor must be Linear, MLP, CNN or a callable, got {kind}")
    if any(base.__module__.startswith("flax.") for base in type(made).__mro__):
        raise ModelError(f"{type(made).__name__} is a Flax module: pass FlaxPredictor(module)")
    sample = jax.ShapeDtypeStruct(data.features.shape[1:], np.float64)
    with float64():
        eqx.filter_eval_shape(lambda m, x: matched(named(m(x), outputs), outputs), made, sample)
    return made


def named(value: Any, outputs: Outputs) -> dict[str, Any]:
    """A predictor's output as a dict; a bare array is the one predicted parameter."""
    if isinstance(value, Mapping):
        return dict(value)
    if len(outputs) > 1:
        raise ModelError(f"the predictor must return a dict with {[name for name, _ in outputs]}")
    ((name, shape),) = outputs
    if jnp.size(value) != np.prod(shape, dtype=int):
        raise ModelError(f"the predictor returns an array of shape {jnp.shape(value)} for {name!r} {shape}")
    return {name: jnp.reshape(value, shape)}


def matched(found: dict[str, Any], outputs: Outputs) -> dict[str, Any]:
    """The outputs, if they have the names and shapes of the predicted parameters."""
    for name, shape in outputs:
        if name not in found:
            raise ModelError(f"the predictor returns {sorted(found)}, but not the parameter {name!r}")
        if jnp.shape(found[name]) != shape:
            raise ModelError(
                f"the predictor returns {name!r} of shape {jnp.shape(found[name])}, expected {shape}"
            )
    return found


class OnHost:
    """A fitted predictor that runs outside of JAX: it predicts, and cannot be trained by a gradient."""

    def predictions(self, features: Any) -> dict[str, np.ndarray]:
        """Parameters by name, [B, *shape], for features [B, ...]."""
        raise NotImplementedError

    @property
    def kind(self) -> str:
        """What runs outside, for messages."""
        raise NotImplementedError

    def __call__(self, features: Any) -> dict[str, Any]:
        """The parameters for one sample's features.

        Raises:
            ModelError: inside a trace, as when it is to be trained.
        """
        if isinstance(features, jax.core.Tracer):
            raise ModelError(
                f"{self.kind} runs outside of JAX, so it cannot be trained by a gradient or traced: it is a "
                f"two-stage baseline. To train for decisions use Linear(), MLP(), or Residual()"
            )
        return {name: value[0] for name, value in self.predictions(np.asarray(features)[None]).items()}


def predict(predictor: Any, features: Any, outputs: Outputs) -> dict[str, np.ndarray]:
    """Predictions for a batch of features [B, ...], in float64: by name, [B, *shape]."""
    if isinstance(predictor, OnHost):
        return predictor.predictions(features)
    with float64():
        found = _predict(predictor, jnp.asarray(np.asarray(features, np.float64)), outputs)
    return {name: np.asarray(value) for name, value in found.items()}


@eqx.filter_jit
def _predict(predictor: Any, features: Any, outputs: Outputs) -> dict[str, Any]:
    return jax.vmap(lambda x: named(predictor(x), outputs))(features)
