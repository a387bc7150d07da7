"""The grid's draws are PyEPO's, its oracle solves the stated program, and the methods reach their figures."""

from __future__ import annotations

import numpy as np
import pytest

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.problems import grid_edges, shortest_path_layer, shortest_path_model, shortest_path_samples

# pyepo.data.shortestpath.genData(3, 5, (2, 2), 4, 0.5, 42) of PyEPO 2.2.7, costs in float32
FEATURES = [-1.01283112, 0.31424733, -0.90802408, -1.4123037, 1.46564877]
COSTS = [
    [0.08520042, 0.31805998, 0.20265964, 0.43456233],
    [0.11301473, 0.17920363, 0.18279701, 0.21867727],
    [0.41700676, 0.13949896, 0.7018743, 0.48144785],
]


def test_the_draws_are_those_of_the_source():
    x, c, expected = shortest_path_samples(3, 42, rows=2, cols=2)
    np.testing.assert_allclose(x[0], FEATURES, atol=5e-9)
    np.testing.assert_array_equal(c.astype(np.float32), np.array(COSTS, np.float32))
    assert (np.abs(c / expected - 1.0) <= 0.5).all()
    _, raw, _ = shortest_path_samples(3, 42, rows=2, cols=2, scaled=False)
    np.testing.assert_allclose(raw, c * 3.5**4)


def test_the_oracle_solves_the_stated_program():
    _, costs, _ = shortest_path_samples(200, 1, rows=4, cols=6)
    layer = shortest_path_layer(4, 6)
    assert len(grid_edges(4, 6)) == costs.shape[1] == 38
    found = layer.solve({"cost": costs})
    expected = dg.DecisionLayer(shortest_path_model(4, 6), solver="highs").solve({"cost": costs})
    np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-12)


@pytest.mark.parametrize(
    "bad",
    [
        {"n": 0},
        {"n": 3, "degree": 0},
        {"n": 3, "noise": 1.0},
        {"n": 3, "rows": 1, "cols": 1},
        {"n": 3, "features": 0},
    ],
)
def test_senseless_draws_are_refused(bad):
    with pytest.raises(ModelError):
        shortest_path_samples(**bad)


def test_surrogates_beat_two_stage_where_the_predictor_is_misspecified():
    x, c, expected = shortest_path_samples(1400, 42)
    train, test = (dg.Dataset(x[part], targets={"cost": c[part]}) for part in (slice(400), slice(400, None)))
    options = {"epochs": 15, "selection": None, "progress": False}
    compared = dg.compare(
        shortest_path_layer(),
        train,
        test,
        methods=["two-stage", "spo+", "pfyl", "dpo", "map"],
        seeds=1,
        **options,
    )
    regret = {name: compared.data.values(name, "normalized_regret")[0] for name in compared.data.methods}
    for name in ("spo+", "pfyl", "dpo", "map"):
        assert regret[name] < regret["two-stage"], regret
    layer = shortest_path_layer()
    best = layer.solve(test.parameters).objective.sum()
    decided = layer.solve({"cost": expected[400:]}).x["x"]
    floor = (c[400:] * decided).sum() / best - 1.0  # of decisions by the true expected costs
    assert floor < min(regret.values())


def test_the_table_of_methods_says_what_they_are():
    listed = dg.methods()
    assert {entry.name for entry in listed} >= {"two-stage", "spo+", "pfyl", "dpo", "dbb", "nid", "map"}
    assert "Elmachtoub" in str(listed)
    for entry in listed:
        method = entry.make()
        if entry.family in ("black box", "pool", "prediction"):
            assert (method.gradient is None) == (entry.family != "black box")
        assert method.loss.decides == (entry.family != "prediction")
