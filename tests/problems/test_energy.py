"""Loaders on small files that the tests write and on the real ones; decisions against enumeration."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from problems.real import DATA, needs

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.problems import energy

REAL = DATA / "icon"
COLUMNS = ("DateTime", "Holiday", *energy.FEATURES, "Unused", "SMPEP2")


def prices(days: int = 3) -> list[list[str]]:
    rng = np.random.default_rng(0)
    return [
        [f'"mon {day + 1}/11/2011 {slot // 2:02d}:{slot % 2 * 30:02d}"', '"All Saints"']
        + [f"{value:8.2f}" for value in rng.uniform(1.0, 9.0, 10)]
        for day in range(days)
        for slot in range(48)
    ]


def write(folder: Path, rows: list[list[str]], columns: tuple[str, ...] = COLUMNS) -> Path:
    path = folder / "prices.dat"
    text = ["#" + " ".join(columns), *(" ".join(row) for row in rows)]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def test_prices_are_read_day_by_day(tmp_path):
    rows = prices()
    days = energy.load_energy_prices(write(tmp_path, rows))
    assert days.dates.tolist() == np.arange("2011-11-01", "2011-11-04", dtype="datetime64[D]").tolist()
    assert days.features.shape == (3, 48, 8) and days.prices.shape == (3, 48) and len(days) == 3
    assert days.features[1, 2].tolist() == [float(v) for v in rows[50][2:10]]
    assert days.prices[2, 47] == float(rows[-1][-1])


def test_gaps_are_filled_in_the_co2_intensity_alone(tmp_path):
    rows = prices()
    co2 = COLUMNS.index("CO2Intensity")
    for slot, value in ((0, "NaN"), (5, "4.0"), (6, "0.00"), (7, "NaN"), (8, "1.0")):
        rows[slot][co2] = value
    rows[60][-1] = "NaN"  # the price of the second day
    days = energy.load_energy_prices(write(tmp_path, rows))
    assert days.dates.astype(str).tolist() == ["2011-11-01", "2011-11-03"]
    np.testing.assert_allclose(days.features[0, 5:9, -1], [4.0, 3.0, 2.0, 1.0])
    assert days.features[0, 0, -1] == days.features[0, 1, -1]


def test_malformed_prices_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no energy prices at"):
        energy.load_energy_prices(tmp_path / "none.dat")
    rows = prices()
    with pytest.raises(ValueError, match="SMPEP2 missing"):
        energy.load_energy_prices(write(tmp_path, rows, (*COLUMNS[:-1], "Price")))
    with pytest.raises(ValueError, match="1/11/2011 has 47 rows"):
        energy.load_energy_prices(write(tmp_path, rows[1:]))
    with pytest.raises(ValueError, match="no rows"):
        energy.load_energy_prices(write(tmp_path, []))
    for column, value, message in ((3, "much", "line 8.*much"), (0, '"monday"', "line 8"), (0, "", "line 8")):
        broken = [list(row) for row in rows]
        broken[6][column] = value
        with pytest.raises(ValueError, match=message):
            energy.load_energy_prices(write(tmp_path, broken))
    for row in rows:
        row[-1] = "NaN"
    with pytest.raises(ValueError, match="every day"):
        energy.load_energy_prices(write(tmp_path, rows))


def test_splits_cover_all_days_once():
    parts = energy.energy_split(789, 3)
    assert [len(part) for part in parts] == [550, 100, 139]
    assert sorted(np.concatenate(parts).tolist()) == list(range(789))
    # sklearn.utils.shuffle(numpy.arange(789), random_state=0)[:8] of scikit-learn 1.9.1
    assert energy.energy_split(789, 0)[0][:8].tolist() == [453, 85, 545, 312, 334, 14, 196, 235]
    with pytest.raises(ModelError, match="cannot be split"):
        energy.energy_split(650)


# --------------------------------------------------------------------------------------------- knapsack


def knapsack_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "X_1gtrain": rng.uniform(size=(96, 9)),
        "X_1gtest": rng.uniform(size=(48, 9)),
        "y_train": rng.uniform(size=96),
        "y_test": rng.uniform(size=48),
        "weights": rng.choice([3, 5, 7], 48),
    }


def test_knapsack_days_are_read(tmp_path):
    arrays = knapsack_arrays()
    np.savez(tmp_path / "k.npz", **arrays)
    found = energy.load_energy_knapsack(tmp_path / "k.npz")
    assert found.features.shape == (3, 48, 8) and found.values.shape == (3, 48)
    np.testing.assert_array_equal(found.features[2], arrays["X_1gtest"][:, 1:])
    np.testing.assert_array_equal(found.values[1], arrays["y_train"][48:])
    layer = energy.energy_knapsack_layer(found.weights, 60)
    solved = layer.solve({"value": found.values})
    best = dg.DecisionLayer(layer.model, solver="highs").solve({"value": found.values})
    np.testing.assert_allclose(solved.objective, best.objective)


def test_malformed_knapsacks_are_refused(tmp_path):
    path = tmp_path / "k.npz"
    with pytest.raises(FileNotFoundError, match="no energy knapsack at"):
        energy.load_energy_knapsack(path)
    path.write_text("no archive", encoding="utf-8")
    with pytest.raises(ValueError, match=r"not an .npz file"):
        energy.load_energy_knapsack(path)
    arrays = knapsack_arrays()
    for name, shorter, message in (
        ("X_1gtrain", arrays["X_1gtrain"][:95], "features"),
        ("y_test", arrays["y_test"][:47], "do not fit"),
        ("weights", arrays["weights"][:47], "do not fit"),
    ):
        np.savez(path, **{**arrays, name: shorter})
        with pytest.raises(ValueError, match=message):
            energy.load_energy_knapsack(path)
    del arrays["weights"]
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="weights missing"):
        energy.load_energy_knapsack(path)


@needs(REAL)
def test_the_real_knapsack_has_the_features_of_the_prices_and_the_published_regret():
    """Least squares over five shuffles: 1017, 1106 and 462; published for two-stage: 989, 1090 and 433."""
    data = energy.load_energy_knapsack(REAL / "knapsack_Data.npz")
    days = energy.load_energy_prices(REAL / "prices2013.dat")
    np.testing.assert_allclose(days.features, data.features, rtol=1e-12)
    design = np.concatenate([data.features, np.ones((789, 48, 1))], axis=-1)
    for capacity, expected in zip((60, 120, 180), (1017, 1106, 462), strict=True):
        layer = energy.energy_knapsack_layer(data.weights, capacity)
        best = layer.solve({"value": data.values})
        regret = []
        for seed in range(5):
            train, _, test = energy.energy_split(789, seed)
            slope = np.linalg.lstsq(design[train].reshape(-1, 9), data.values[train].ravel(), rcond=None)[0]
            x = layer.solve({"value": design[test] @ slope}).x["x"]
            regret.append((best.objective[test] - (data.values[test] * x).sum(axis=1)).mean())
        assert abs(np.mean(regret) - expected) < 0.02 * expected
        assert abs(np.mean(regret) - energy.PUBLISHED["knapsack"]["two-stage"][capacity]) < 0.1 * expected


# ------------------------------------------------------------------------------------------- scheduling

SMALL = """240
1
2
0 190 0.1 0.0
5
1 170 0.1 0.1
3
3
0 2 0 4 10.0
3
1 1 1 6 6.0
3
2 3 0 6 4.0
2
"""


def small(folder: Path, text: str = SMALL) -> Path:
    path = folder / "load.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_schedules_are_the_cheapest(tmp_path):
    instance = energy.load_scheduling(small(tmp_path))
    assert instance.slots == 6 and instance.capacity.tolist() == [5, 3] and instance.power[0] == 10.0
    starts = energy.scheduling_starts(instance)
    assert len(starts) == 2 * (3 + 5 + 4)
    price = np.random.default_rng(2).uniform(-5.0, 20.0, (30, 6))
    best = np.full(len(price), np.inf)
    for plan in itertools.product(*(starts[starts[:, 0] == j] for j in range(3))):
        use, energy_used = np.zeros((2, 6)), np.zeros(6)
        for task, machine, slot in plan:
            slots = slice(slot, slot + instance.duration[task])
            use[machine, slots] += instance.use[task]
            energy_used[slots] += instance.power[task] * 4.0  # a slot has four hours
        if (use <= instance.capacity[:, None]).all():
            best = np.minimum(best, price @ energy_used)
    found = dg.DecisionLayer(energy.scheduling_model(instance)).solve({"price": price})
    np.testing.assert_allclose(found.objective, best)


def test_malformed_instances_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no scheduling instance at"):
        energy.load_scheduling(tmp_path / "none.txt")
    for old, new, message in (
        ("4.0\n2\n", "4.0\n", "ends before use of task 2"),
        ("4.0\n2\n", "4.0\n2\n9\n", "1 line"),
        ("0 2 0 4 10.0", "0 2 0 4", "task 0: expected 5"),
        ("0 2 0 4 10.0", "0 2 zero 4 10.0", "task 0.*zero"),
        ("240\n1\n", "240\n2\n", "one resource"),
    ):
        with pytest.raises(ValueError, match=message):
            energy.load_scheduling(small(tmp_path, SMALL.replace(old, new)))
    narrow = energy.load_scheduling(small(tmp_path, SMALL.replace("2 3 0 6 4.0", "2 3 4 6 4.0")))
    with pytest.raises(ModelError, match="task 2 does not fit"):
        energy.scheduling_model(narrow)


@needs(REAL)
def test_a_real_day_is_scheduled():
    instance = energy.load_scheduling(REAL / "load1_day01.txt")
    days = energy.load_energy_prices(REAL / "prices2013.dat")
    model = energy.scheduling_model(instance)
    found = dg.DecisionLayer(model).solve({"price": days.prices[:5]})
    flat = dg.DecisionLayer(model).solve({"price": np.ones((1, 48))})
    cost = (days.prices[:5] @ np.ones(48)) / 48 * flat.objective  # at the mean price of the day
    assert (found.objective < cost).all()
