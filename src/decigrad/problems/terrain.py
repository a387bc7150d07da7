"""Paths across terrain that is seen only in an image: the cheapest way from the top left to the bottom right.

    minimize    cᵀx      over the indicators x of the nodes of such paths, to any of eight neighbors

A map is a grid of nodes, each of one of five kinds of terrain, in patches. The image shows a tile of pixels
for every node, in the color of its kind, under light that differs from map to map and with noise on each
pixel. The costs are those of the kinds. A predictor sees the image and gives a cost for every node.

The setting is that of the Warcraft maps of Vlastelica et al., in which a convolutional network learns costs
from the paths alone; their maps are images of a game with 12 × 12 nodes. These maps are drawn here, so
nothing has to be downloaded, and there are no published figures for them.

Source: Vlastelica, Paulus, Musil, Martius and Rolínek (2020), "Differentiation of Blackbox Combinatorial
Solvers", ICLR, arXiv:1912.02175.
"""

from __future__ import annotations

import numpy as np

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.problems._polynomial import linear_model

TERRAINS = {
    "road": (1.0, (0.75, 0.65, 0.45)),
    "grass": (1.5, (0.35, 0.65, 0.25)),
    "forest": (4.0, (0.10, 0.35, 0.15)),
    "rock": (7.0, (0.50, 0.50, 0.50)),
    "water": (9.0, (0.15, 0.30, 0.70)),
}
"""Cost of a node, and color as red, green, blue between 0 and 1, by kind; from low land to high costs."""


def terrain_model(rows: int = 12, cols: int = 12) -> dg.Model:
    """Parameter `cost` and variable `x`, [rows · cols] each, row by row; both ends of the path are visited.

    **Paths are not described**: as a program over nodes alone they have no short description. The layer's
    oracle knows them, so decide with `terrain_layer`, not with this model alone.
    """
    nodes = dg.oracles.NodeGridPath(rows, cols).size()
    m, x = linear_model(f"terrain {rows}x{cols}", nodes)
    m.subject_to(x[np.array([0, nodes - 1])] == 1.0, name="ends")
    return m


def terrain_layer(rows: int = 12, cols: int = 12) -> dg.DecisionLayer:
    """The model, solved by `oracles.NodeGridPath`; a decision is a path where costs are not negative.

    A predictor for it is `dg.CNN(positive=True)`, which looks at one tile for every node.
    """
    return dg.DecisionLayer(terrain_model(rows, cols), solver=dg.oracles.NodeGridPath(rows, cols, cover=True))


def terrain_samples(
    n: int,
    seed: int = 42,
    *,
    rows: int = 12,
    cols: int = 12,
    tile: int = 4,
    light: float = 0.25,
    noise: float = 0.1,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw images [n, rows·tile, cols·tile, 3] with values from 0 to 1, and the costs [n, rows·cols] in them.

    Args:
        n: number of maps.
        seed: of the draws.
        rows, cols: of the grid of nodes.
        tile: pixels along each side of a node.
        light: brightness is drawn from U(1 − light, 1 + light) for each map, 0 ≤ light < 1.
        noise: standard deviation of each pixel in each color; values beyond 0 and 1 are cut.

    >>> images, costs = terrain_samples(5, rows=6, cols=8)
    >>> images.shape, costs.shape, sorted(set(costs.ravel().tolist()))
    ((5, 24, 32, 3), (5, 48), [1.0, 1.5, 4.0, 7.0, 9.0])
    """
    if min(n, rows, cols, tile) < 1:
        raise ModelError(f"n, rows, cols and tile must be positive, got {n}, {rows}, {cols}, {tile}")
    if not 0 <= light < 1 or not noise >= 0:
        raise ModelError(f"light must lie in [0, 1) and noise must not be negative, got {light}, {noise}")
    rng = np.random.RandomState(seed)
    kind = _patches(rng.normal(size=(n, rows + 4, cols + 4)))
    price, color = (np.array(column) for column in zip(*TERRAINS.values(), strict=True))
    pixels = color[kind].repeat(tile, axis=1).repeat(tile, axis=2)
    pixels *= rng.uniform(1.0 - light, 1.0 + light, (n, 1, 1, 1))
    pixels += noise * rng.normal(size=pixels.shape)
    return np.clip(pixels, 0.0, 1.0), price[kind].reshape(n, -1)


def _patches(field: np.ndarray) -> np.ndarray:
    """Kinds [n, rows, cols] of about equal share in every map, from a field [n, rows + 4, cols + 4]."""
    for _ in range(2):  # a mean over 3 × 3 nodes, twice
        down = field[:, :-2] + field[:, 1:-1] + field[:, 2:]
        field = down[:, :, :-2] + down[:, :, 1:-1] + down[:, :, 2:]
    n, rows, cols = field.shape
    order = field.reshape(n, -1).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return (order * len(TERRAINS) // (rows * cols)).reshape(n, rows, cols)
