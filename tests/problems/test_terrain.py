"""Images show the terrain; paths across it join the corners."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import decigrad as dg
from decigrad import problems
from decigrad.errors import ModelError
from decigrad.problems.terrain import TERRAINS


def test_images_show_the_terrain():
    images, costs = problems.terrain_samples(20, 1, rows=9, cols=11, tile=3)
    again, _ = problems.terrain_samples(20, 1, rows=9, cols=11, tile=3)
    np.testing.assert_array_equal(images, again)
    assert images.shape == (20, 27, 33, 3) and images.min() >= 0.0 and images.max() <= 1.0
    plain, same = problems.terrain_samples(20, 1, rows=9, cols=11, tile=3, light=0.0, noise=0.0)
    np.testing.assert_array_equal(same, costs)
    colors = {color: price for price, color in TERRAINS.values()}
    nodes = plain[:, 1::3, 1::3].reshape(-1, 3)
    np.testing.assert_array_equal([colors[tuple(c)] for c in nodes.tolist()], costs.ravel())
    shares = [(costs == price).mean(axis=1) for price, _ in TERRAINS.values()]
    np.testing.assert_allclose(shares, 0.2, atol=0.011)


def test_terrain_comes_in_patches():
    _, costs = problems.terrain_samples(50, 2)
    grid = costs.reshape(50, 12, 12)
    assert (grid[:, 1:] == grid[:, :-1]).mean() > 0.4  # 0.2 if nodes were independent


def test_paths_across_terrain_join_the_corners():
    _, costs = problems.terrain_samples(10, 3, rows=5, cols=4)
    found = problems.terrain_layer(5, 4).solve({"cost": costs})
    for x, cost, value in zip(found.x["x"], costs, found.objective, strict=True):
        np.testing.assert_allclose(cost @ x, value)
        reached, nodes = {(0, 0)}, {divmod(int(i), 4) for i in np.flatnonzero(x)}
        for _ in nodes:
            reached |= {(i, j) for i, j in nodes for a, b in reached if max(abs(i - a), abs(j - b)) == 1}
        assert reached == nodes and (4, 3) in nodes


def test_a_small_network_learns_costs_from_images():
    images, costs = problems.terrain_samples(80, 5, rows=5, cols=5, tile=3)
    data = dg.Dataset(images, {"cost": costs})
    train, test = data.take(np.arange(40)), data.take(np.arange(40, 80))
    layer = problems.terrain_layer(5, 5)
    cnn = dg.CNN(width=8, positive=True)
    options = {"selection": None, "warm_start": False, "epochs": 12, "batch_size": 10, "progress": False}
    found = dg.fit(cnn, layer, train, dg.losses.SPOPlus(), **options, averaging=False)
    assert found.failures == {}
    with jax.enable_x64(True):
        untrained = cnn.init(train, (("cost", (25,)),))
    before, after = (dg.evaluate(p, layer, test).normalized_regret for p in (untrained, found.predictor))
    assert after < 0.5 * before


@pytest.mark.parametrize(
    "bad", [{"n": 0}, {"n": 1, "tile": 0}, {"n": 1, "light": 1.0}, {"n": 1, "noise": -1.0}]
)
def test_senseless_terrain_is_refused(bad):
    with pytest.raises(ModelError):
        problems.terrain_samples(**bad)
