"""Predictors: from features to a dict of parameters.

`Linear`, `MLP` and `CNN` are recipes; `fit` initializes them for the data at hand. Any callable pytree works
in their place (an Equinox module, say): it maps the features of *one* sample to a dict of arrays named like
the predicted parameters, or to one array when one parameter is predicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from decigrad.compiled import float64
from decigrad.data import Dataset, Scaling
from decigrad.errors import ModelError
from decigrad.regressors import FittedRegressor

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer

Outputs = tuple[tuple[str, tuple[int, ...]], ...]


class _Scaled(eqx.Module):
    """Standardized inputs and outputs around a network; None where nothing is scaled. Not trained: NumPy."""

    mean: Any
    spread: Any
    shift: Any
    scale: Any
    outputs: Outputs = eqx.field(static=True)

    def inputs(self, features: Any) -> Any:
        flat = jnp.reshape(features, -1)
        return flat if self.mean is None else (flat - self.mean) / self.spread

    def finished(self, flat: Any) -> dict[str, Any]:
        if self.shift is not None:
            flat = self.shift + self.scale * flat
        found, start = {}, 0
        for name, shape in self.outputs:
            size = int(np.prod(shape, dtype=int))
            found[name] = flat[start : start + size].reshape(shape)
            start += size
        return found


class LinearPredictor(_Scaled):
    """ĉ = W φ + b, for flattened features φ [p] and flattened, concatenated parameters ĉ [m]."""

    weight: Any
    bias: Any
    shared: bool = eqx.field(static=True, default=False)

    def __call__(self, features: Any) -> dict[str, Any]:
        if self.shared:  # φ [items, p]: one prediction for each item, with the same W [1, p] and b [1]
            return self.finished(jax.vmap(self._flat)(features)[:, 0])
        return self.finished(self._flat(features))

    def _flat(self, features: Any) -> Any:
        flat = self.weight @ self.inputs(features)
        return flat if self.bias is None else flat + self.bias

    def fitted_on(self, data: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features [N, p], targets [N, m] and weights [N] of the regression, over samples or their items."""
        if self.shared:
            data = _pooled(data, self.outputs)
        columns = [data.targets[name].reshape(len(data), -1) for name, _ in self.outputs]
        return data.features.reshape(len(data), -1), np.concatenate(columns, axis=1), data.weights

    @property
    def coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """W [m, p] and b [m] in the units of the data."""
        weight = np.asarray(self.weight, np.float64)
        bias = np.zeros(len(weight)) if self.bias is None else np.asarray(self.bias, np.float64)
        if self.scale is None or self.mean is None:
            return weight, bias
        raw = self.scale[:, None] * weight / self.spread
        return raw, self.shift + self.scale * bias - raw @ self.mean

    def with_coefficients(self, weight: np.ndarray, bias: np.ndarray | None = None) -> LinearPredictor:
        """The same predictor with W and b (in the units of the data) in place of its own."""
        offset = np.zeros(len(weight)) if bias is None else np.asarray(bias)
        if self.scale is not None and self.mean is not None:
            offset = (offset + weight @ self.mean - self.shift) / self.scale
            weight = weight * self.spread / self.scale[:, None]
        with float64():
            new = (jnp.asarray(weight), None if self.bias is None else jnp.asarray(offset))
        return eqx.tree_at(lambda m: (m.weight, m.bias), self, new, is_leaf=lambda leaf: leaf is None)


class MLPPredictor(_Scaled):
    """A fully connected network with one activation between its layers."""

    layers: tuple[eqx.nn.Linear, ...]
    activation: Any = eqx.field(static=True)

    def __call__(self, features: Any) -> dict[str, Any]:
        value = self.inputs(features)
        for layer in self.layers[:-1]:
            value = self.activation(layer(value))
        return self.finished(self.layers[-1](value))


@dataclass(frozen=True)
class Linear:
    """A linear predictor ĉ = W φ + b.

    Args:
        bias: with an intercept b.
        standardize: train in standardized features and targets (the same functions, better conditioned);
            default: as `bias`, since scaling shifts the origin.
        shared: one W [1, p] for all entries of the predicted parameter [items], each with features of its
            own: ĉᵢ = W φᵢ + b, for features φ [items, p].
    """

    bias: bool = True
    standardize: bool | None = None
    shared: bool = False

    def init(self, data: Dataset, outputs: Outputs, seed: int = 0) -> LinearPredictor:
        """A predictor that starts at zero (in standardized units: at the mean of the targets)."""
        standardize = self.bias if self.standardize is None else self.standardize
        if standardize and not self.bias:
            raise ModelError("Linear: standardize=True needs bias=True, because centring moves the origin")
        if self.shared:
            data = _pooled(data, outputs)
        inputs = int(np.prod(data.features.shape[1:]))
        size = 1 if self.shared else sum(int(np.prod(shape, dtype=int)) for _, shape in outputs)
        with float64():
            return LinearPredictor(
                *_scaling(data, outputs, standardize),
                outputs=outputs,
                weight=jnp.zeros((size, inputs)),
                bias=jnp.zeros(size) if self.bias else None,
                shared=self.shared,
            )


def _pooled(data: Dataset, outputs: Outputs) -> Dataset:
    """All items of all samples as samples: features [B, items, p] and one target [B, items]."""
    (name, shape), *others = outputs
    if others or data.features.ndim != 3 or shape != data.features.shape[1:2]:
        raise ModelError(
            f"Linear(shared=True) needs features [samples, items, p] and one predicted parameter [items]; "
            f"got features {data.features.shape} and {', '.join(f'{n!r} {s}' for n, s in outputs)}"
        )
    flat = data.features.reshape(-1, data.features.shape[2])
    return Dataset(
        flat, targets={name: data.targets[name].reshape(-1)}, weights=np.repeat(data.weights, shape[0])
    )


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron with hidden layers of the given widths, on standardized data.

    Args:
        hidden: widths of the hidden layers.
        activation: name of a function of `jax.nn`.
    """

    hidden: tuple[int, ...] = (64,)
    activation: str = "relu"

    def init(self, data: Dataset, outputs: Outputs, seed: int = 0) -> MLPPredictor:
        """A randomly initialized network; the same seed gives the same bits."""
        if not hasattr(jax.nn, self.activation):
            raise ModelError(f"MLP: jax.nn has no activation {self.activation!r}")
        size = sum(int(np.prod(shape, dtype=int)) for _, shape in outputs)
        widths = [int(np.prod(data.features.shape[1:])), *self.hidden, size]
        with float64():
            keys = jax.random.split(jax.random.key(seed), len(widths) - 1)
            layers = tuple(
                eqx.nn.Linear(a, b, key=k) for a, b, k in zip(widths[:-1], widths[1:], keys, strict=True)
            )
        return MLPPredictor(
            *_scaling(data, outputs, True),
            outputs=outputs,
            layers=layers,
            activation=getattr(jax.nn, self.activation),
        )


class CNNPredictor(_Scaled):
    """Convolutions from an image [H, W, channels] to one number for every cell of a grid."""

    layers: tuple[eqx.nn.Conv2d, ...]
    activation: Any = eqx.field(static=True)
    positive: bool = eqx.field(static=True)

    def __call__(self, features: Any) -> dict[str, Any]:
        value = jnp.moveaxis((features - self.mean) / self.spread, -1, 0)
        for layer in self.layers[:-1]:
            value = self.activation(layer(value))
        flat = self.layers[-1](value).reshape(-1)
        return self.finished(jax.nn.softplus(flat) if self.positive else flat)


@dataclass(frozen=True)
class CNN:
    """A small convolutional network for images: one number for every cell of a grid laid over the image.

    The first layer sees each cell's own pixels, [tile, tile, channels]; `depth` layers of 3 × 3 cells add
    their surroundings; the last combines the `width` numbers of a cell. Features [N, H, W, channels], and one
    predicted parameter of n entries, row by row, or [rows, cols]: tile² = H·W / n.

    Args:
        width: channels between the layers.
        depth: layers that look at neighboring cells.
        activation: name of a function of `jax.nn`.
        positive: predict positive numbers only, by a softplus in the unit of the mean target.
    """

    width: int = 16
    depth: int = 1
    activation: str = "relu"
    positive: bool = False

    def init(self, data: Dataset, outputs: Outputs, seed: int = 0) -> CNNPredictor:
        """A randomly initialized network; the same seed gives the same bits."""
        if not hasattr(jax.nn, self.activation):
            raise ModelError(f"CNN: jax.nn has no activation {self.activation!r}")
        tile = self._tile(data, outputs)
        channels = data.features.shape[3]
        sizes = [(channels, self.width, tile, tile, 0)] + [(self.width, self.width, 3, 1, 1)] * self.depth
        with float64():
            keys = jax.random.split(jax.random.key(seed), len(sizes) + 1)
            layers = tuple(
                eqx.nn.Conv2d(a, b, kernel_size=size, stride=step, padding=pad, key=key)
                for (a, b, size, step, pad), key in zip([*sizes, (self.width, 1, 1, 1, 0)], keys, strict=True)
            )
        pixels, targets = data.features.reshape(-1, channels), data.targets[outputs[0][0]]
        if self.positive and not targets.mean() > 0:
            raise ModelError(f"CNN(positive=True) needs targets of positive mean, got {targets.mean():g}")
        spread = pixels.std(axis=0)
        return CNNPredictor(
            mean=pixels.mean(axis=0),
            spread=np.where(spread > 0, spread, 1.0),
            shift=np.zeros(1) if self.positive else targets.mean(keepdims=True).reshape(1),
            scale=np.full(1, targets.mean() if self.positive else targets.std() or 1.0),
            outputs=outputs,
            layers=layers,
            activation=getattr(jax.nn, self.activation),
            positive=self.positive,
        )

    def _tile(self, data: Dataset, outputs: Outputs) -> int:
        """Pixels along the side of a cell."""
        shape = data.features.shape
        if len(shape) != 4 or len(outputs) != 1:
            raise ModelError(
                f"CNN needs features [samples, height, width, channels] and one predicted parameter; got "
                f"features {shape} and {', '.join(f'{n!r} {s}' for n, s in outputs)}"
            )
        size = int(np.prod(outputs[0][1], dtype=int))
        tile = round(np.sqrt(shape[1] * shape[2] / size))
        grid = shape[1] // max(tile, 1), shape[2] // max(tile, 1)
        if grid[0] * grid[1] != size or shape[1:3] != (grid[0] * tile, grid[1] * tile):
            raise ModelError(
                f"CNN: an image of {shape[1]} × {shape[2]} pixels has no grid of {size} square cells; "
                f"{outputs[0][0]!r} must have one entry for each"
            )
        if len(outputs[0][1]) == 2 and outputs[0][1] != grid:
            raise ModelError(f"CNN: the image has {grid} cells, {outputs[0][0]!r} has shape {outputs[0][1]}")
        return tile


def _scaling(data: Dataset, outputs: Outputs, on: bool) -> tuple[Any, Any, Any, Any]:
    if not on:
        return None, None, None, None
    s = Scaling.of(data, [name for name, _ in outputs])
    return s.mean, s.spread, s.shift, s.scale


def outputs_of(layer: DecisionLayer) -> Outputs:
    """Names and shapes of the layer's predicted parameters."""
    return tuple((name, layer.parameters[name].shape) for name in layer.predicts)


def initialized(predictor: Any, layer: DecisionLayer, data: Dataset, seed: int) -> Any:
    """The predictor itself, or what its recipe makes of the data; its outputs are checked.

    Raises:
        ModelError: not callable, or outputs that do not match the predicted parameters.
    """
    outputs = outputs_of(layer)
    made = predictor.init(data, outputs, seed) if isinstance(predictor, Linear | MLP | CNN) else predictor
    if not callable(made):
        kind = type(predictor).__name__
        raise ModelError(f"a predictor must be Linear, MLP, CNN or a callable, got {kind}")
    sample = jax.ShapeDtypeStruct(data.features.shape[1:], np.float64)
    with float64():
        found = eqx.filter_eval_shape(lambda m, x: named(m(x), outputs), made, sample)
    for name, shape in outputs:
        if name not in found:
            raise ModelError(f"the predictor returns {sorted(found)}, but not the parameter {name!r}")
        if found[name].shape != shape:
            raise ModelError(f"the predictor returns {name!r} of shape {found[name].shape}, expected {shape}")
    return made


def named(value: Any, outputs: Outputs) -> dict[str, Any]:
    """A predictor's output as a dict; a bare array is the one predicted parameter."""
    if isinstance(value, Mapping):
        return dict(value)
    if len(outputs) == 1:
        return {outputs[0][0]: jnp.reshape(value, outputs[0][1])}
    raise ModelError(f"the predictor must return a dict with {[name for name, _ in outputs]}")


def predict(predictor: Any, features: Any, outputs: Outputs) -> dict[str, np.ndarray]:
    """Predictions for a batch of features [B, ...], in float64: by name, [B, *shape]."""
    if isinstance(predictor, FittedRegressor):
        return predictor.predictions(features)
    with float64():
        found = _predict(predictor, jnp.asarray(np.asarray(features, np.float64)), outputs)
    return {name: np.asarray(value) for name, value in found.items()}


@eqx.filter_jit
def _predict(predictor: Any, features: Any, outputs: Outputs) -> dict[str, Any]:
    return jax.vmap(lambda x: named(predictor(x), outputs))(features)


def least_squares(predictor: LinearPredictor, data: Dataset, ridge: float = 0.0) -> LinearPredictor:
    """The linear predictor that minimizes Σ wᵢ‖W φᵢ + b − cᵢ‖² + ridge·‖W‖²_F, in closed form.

    The bias is not penalized; with several solutions, the one of minimum norm.
    """
    features, targets, w = predictor.fitted_on(data)
    w = np.sqrt(w)[:, None]
    columns = features if predictor.bias is None else np.column_stack([features, np.ones(len(features))])
    if ridge > 0:
        penalty = np.sqrt(ridge) * np.eye(features.shape[1], columns.shape[1])
        left, right = (
            np.vstack([w * columns, penalty]),
            np.vstack([w * targets, np.zeros((len(penalty), targets.shape[1]))]),
        )
    else:
        left, right = w * columns, w * targets
    solution = np.linalg.lstsq(left, right, rcond=None)[0].T
    if predictor.bias is None:
        return predictor.with_coefficients(solution)
    return predictor.with_coefficients(solution[:, :-1], solution[:, -1])
