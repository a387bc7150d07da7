"""What `fit` holds out to choose by: the times and groups of the data, against folds made by hand."""

import numpy as np
import optax
import pytest
from sklearn.model_selection import GroupKFold

import decigrad as dg
from decigrad.selection import FitResult

MODEL = dg.Model("simplex")
SHARES, COST = MODEL.continuous("x", shape=3, lb=0.0, ub=1.0), MODEL.parameter("cost", shape=3)
MODEL.minimize(dg.sum(COST * SHARES) + 0.4 * dg.sum(SHARES * SHARES))
MODEL.subject_to(dg.sum(SHARES) == 1.0)
LAYER = dg.DecisionLayer(MODEL, solver="daqp")
STILL = optax.sgd(0.0)  # nothing moves: what two-stage scores is all that is looked at


def fit(data: dg.Dataset, selection: object) -> FitResult:
    return dg.fit(dg.Linear(), LAYER, data, selection=selection, epochs=1, batch_size=8, optimizer=STILL)


def dated_and_grouped(times: bool, groups: bool) -> dg.Dataset:
    """24 samples in no order of time, in six groups of different sizes that mix in time."""
    rng = np.random.default_rng(5)
    features = rng.normal(size=(24, 2))
    costs = 1.0 + features @ rng.normal(size=(2, 3)) + 0.6 * features[:, :1] * features[:, 1:] * [1, -1, 0.5]
    time, group = rng.permutation(24) // 2, rng.permutation(list("aaaaaaabbbbbcccccddddeef"))
    return dg.Dataset(
        features, {"cost": costs}, times=time if times else None, groups=group if groups else None
    )


def groups_in_time(data: dg.Dataset) -> tuple[list[str], np.ndarray]:
    """The groups in the order of their first samples, and how many samples there are up to each."""
    seen = data.groups[np.argsort(data.times, kind="stable")].tolist()
    line = sorted(set(seen), key=seen.index)
    return line, np.cumsum([seen.count(g) for g in line])


def two_stage_regret(data: dg.Dataset, held: np.ndarray) -> float:
    others = dg.fit(dg.Linear(), LAYER, data.take(~held), "two-stage").predictor
    return dg.evaluate(others, LAYER, data.take(held)).mean_regret


@pytest.mark.parametrize(
    ("times", "groups", "ordered"),
    [(True, False, None), (True, False, False), (False, True, None), (True, True, False), (True, True, None)],
)
def test_folds_follow_the_times_and_groups_of_the_data(times, groups, ordered):
    data = dated_and_grouped(times, groups)
    if groups and times and ordered is None:  # cut where eight and sixteen are nearest
        line, ends = groups_in_time(data)
        cuts = [int(np.argmin(abs(ends - n))) + 1 for n in (8, 16)]
        parts = [line[: cuts[0]], line[cuts[0] : cuts[1]], line[cuts[1] :]]
        held = [np.isin(data.groups, part) for part in parts]
    elif groups:
        tests = [test for _, test in GroupKFold(3).split(np.zeros(24), groups=data.groups)]
        held = [np.isin(np.arange(24), test) for test in tests]
    elif ordered is None:  # twelve times in three blocks of four
        held = [data.times // 4 == fold for fold in range(3)]
    else:
        tests = np.split(np.random.default_rng(0).permutation(24), 3)
        held = [np.isin(np.arange(24), test) for test in tests]
    expected = sum(h.sum() * two_stage_regret(data, h) for h in held) / 24
    how = dg.CrossValidation(folds=3, weights=(0.0,), ordered=ordered)
    found = fit(data, how)
    assert found.chosen["two_stage_score"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("times", "groups"), [(True, False), (False, True), (True, True)])
def test_hold_out_follows_the_times_and_groups_of_the_data(times, groups):
    data = dated_and_grouped(times, groups)
    if not groups:
        held = data.times >= 9  # the last three of twelve times, two samples each
    elif times:
        line, ends = groups_in_time(data)
        held = np.isin(data.groups, line[int(np.argmin(abs(ends[:-1] - 18))) + 1 :])
    else:
        line = np.random.default_rng(0).permutation(list("abcdef")).tolist()
        ends = np.cumsum([np.sum(data.groups == g) for g in line])
        held = np.isin(data.groups, line[: int(np.argmin(abs(ends[:-1] - 6))) + 1])
    found = fit(data, dg.HoldOut(0.25))
    assert found.chosen["epochs"] == 0
    assert found.chosen["validation"] == pytest.approx(two_stage_regret(data, held), rel=1e-9)
