"""Neural networks: fully connected, and convolutional for images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from decigrad.compiled import float64
from decigrad.data import Dataset
from decigrad.errors import ModelError
from decigrad.predictors.protocol import Outputs, Recipe, Scaled, activation_named, pooled, scaling, size_of


class MLPPredictor(Scaled):
    """A fully connected network with one activation between its layers."""

    layers: tuple[eqx.nn.Linear, ...]
    activation: Any = eqx.field(static=True)

    def raw(self, inputs: Any) -> Any:
        """The network's output in standardized units."""
        value = inputs
        for layer in self.layers[:-1]:
            value = self.activation(layer(value))
        return self.layers[-1](value)


@dataclass(frozen=True)
class MLP(Recipe):
    """A multilayer perceptron with hidden layers of the given widths, on standardized data.

    Args:
        hidden: widths of the hidden layers.
        activation: name of a function of `jax.nn`.
        shared: one network for all entries of the predicted parameter [items], each with features of its
            own, for features φ [items, p]; its last layer has one number for each predicted parameter.
    """

    hidden: tuple[int, ...] = (64,)
    activation: str = "relu"
    shared: bool = False

    def init(self, data: Dataset, outputs: Outputs, seed: int = 0) -> MLPPredictor:
        """A randomly initialized network; the same seed gives the same bits."""
        activation = activation_named("MLP", self.activation)
        if any(width < 1 for width in self.hidden):
            raise ModelError(f"MLP: a hidden layer has at least one unit, got hidden={self.hidden}")
        if self.shared:
            data = pooled(data, outputs, "MLP")
        widths = [int(np.prod(data.features.shape[1:])), *self.hidden, size_of(outputs, self.shared)]
        with float64():
            keys = jax.random.split(jax.random.key(seed), len(widths) - 1)
            layers = tuple(
                eqx.nn.Linear(a, b, key=k) for a, b, k in zip(widths[:-1], widths[1:], keys, strict=True)
            )
        return MLPPredictor(
            *scaling(data, outputs), outputs=outputs, layers=layers, activation=activation, shared=self.shared
        )


class CNNPredictor(Scaled):
    """Convolutions from an image [H, W, channels] to one number for every cell of a grid."""

    layers: tuple[eqx.nn.Conv2d, ...]
    activation: Any = eqx.field(static=True)
    positive: bool = eqx.field(static=True)

    def inputs(self, features: Any) -> Any:
        """Standardized by channel."""
        return (features - self.mean) / self.spread

    def raw(self, inputs: Any) -> Any:
        """One number for every cell, row by row."""
        value = jnp.moveaxis(inputs, -1, 0)
        for layer in self.layers[:-1]:
            value = self.activation(layer(value))
        flat = self.layers[-1](value).reshape(-1)
        return jax.nn.softplus(flat) if self.positive else flat


@dataclass(frozen=True)
class CNN(Recipe):
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
        activation = activation_named("CNN", self.activation)
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
            activation=activation,
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
