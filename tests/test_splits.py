"""Splits: against scikit-learn's on the same rows, and by what must not happen: a peek, a divided group."""

import datetime
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, TimeSeriesSplit

import decigrad as dg
from decigrad.splits import folds_of, held_out


def numbered(count: int, **labels) -> dg.Dataset:
    """A dataset whose target is the number of the row."""
    return dg.Dataset(np.zeros((count, 1)), {"row": np.arange(float(count))}, **labels)


def rows(data: dg.Dataset) -> list[int]:
    return data.targets["row"].astype(int).tolist()


@pytest.mark.parametrize(
    ("n", "folds", "gap", "train", "test"),
    [
        (20, 4, 0, None, None),
        (23, 3, 2, None, None),
        (30, 5, 1, 6, 3),
        (17, 2, 3, 4, 5),
        (100, 7, 0, 20, None),
    ],
)
def test_walk_forward_in_rows_is_scikit_learns(n, folds, gap, train, test):
    theirs = TimeSeriesSplit(folds, max_train_size=train, test_size=test, gap=gap).split(np.zeros(n))
    ours = dg.walk_forward(numbered(n), folds, gap=gap, train=train, test=test)
    assert [(rows(a), rows(b)) for a, b in ours] == [(a.tolist(), b.tolist()) for a, b in theirs]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(1, 12), st.integers(1, 8), st.integers(0, 4), st.booleans())
def test_without_a_number_of_folds_tests_follow_the_first_window(n, train, test, gap, dated):
    day = np.timedelta64(1, "D")
    data = numbered(n, times=np.datetime64("2024-01-01") + np.arange(n) * day if dated else None)
    lengths = {"train": train, "test": test, "gap": gap}
    if train + gap >= n:
        with pytest.raises(dg.ModelError, match="too few"):
            list(dg.walk_forward(data, **lengths))
        return
    expected, start = [], train + gap
    while start < n:
        expected.append(
            (list(range(start - gap - train, start - gap)), list(range(start, min(start + test, n))))
        )
        start += test
    found = [(rows(a), rows(b)) for a, b in dg.walk_forward(data, **lengths)]
    assert found == expected
    if dated:  # as spans of time
        spans = {name: length * day for name, length in lengths.items()}
        assert [(rows(a), rows(b)) for a, b in dg.walk_forward(data, **spans)] == expected


def test_times_give_the_order_and_spans_of_time_agree_with_rows():
    n, day = 40, np.timedelta64(1, "D")
    shuffled = np.random.default_rng(0).permutation(n)
    days = np.datetime64("2024-01-01") + shuffled * day
    data = numbered(n, times=days)
    in_rows = dg.walk_forward(data, 3, gap=2, train=10, test=5)
    in_time = dg.walk_forward(data, 3, gap=2 * day, train=datetime.timedelta(days=10), test=5 * day)
    for (a, b), (c, d) in zip(in_rows, in_time, strict=True):
        assert rows(a) == rows(c) and rows(b) == rows(d) and len(a) == 10 and len(b) == 5
        assert (np.diff(a.times) == day).all()
        assert b.times[0] - a.times[-1] == 3 * day  # two days lie between


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=6, max_size=40), st.integers(1, 3), st.integers(0, 3), st.data())
def test_no_time_is_on_both_sides_and_nothing_is_lost(times, folds, gap, drawn):
    times = np.array(times)
    dated = drawn.draw(st.booleans())
    label = np.datetime64("2024-01-01") + times * np.timedelta64(1, "D") if dated else times
    span = np.timedelta64(gap, "D") if dated else gap
    data = numbered(len(times), times=label)
    try:
        pairs = list(dg.walk_forward(data, folds, gap=span))
    except dg.ModelError as error:
        assert "samples" in str(error)
        return
    tests = [rows(test) for _, test in pairs]
    tested = [row for test in tests for row in test]
    assert len(tested) == len(set(tested)) and times.max() in times[tests[-1]]
    for (train, test), earlier in zip(pairs, [None, *tests[:-1]], strict=True):
        before, after = times[rows(train)], times[rows(test)]
        assert before.max() + (gap if dated else 0) < after.min()
        assert (times >= after.min()).sum() >= len(test)
        if not gap:  # everything before the test is trained on
            assert len(train) == (times < after.min()).sum()
        if earlier is not None:
            assert times[earlier].max() < after.min()


def test_time_split_keeps_a_time_together_and_leaves_the_gap_out():
    times = np.array([3, 1, 1, 2, 2, 2, 4, 5, 0, 6])
    first, rest = dg.time_split(numbered(10, times=times), 0.5)
    assert sorted(times[rows(first)]) == [0, 1, 1] and sorted(times[rows(rest)]) == [2, 2, 2, 3, 4, 5, 6]
    first, rest = dg.time_split(numbered(10), 0.7, gap=2)
    assert rows(first) == [0, 1, 2, 3, 4] and rows(rest) == [7, 8, 9]
    by_time = numbered(10, times=times).split(0.7, seed=None)
    assert by_time[0].times.max() < by_time[1].times.min()
    most = dg.time_split(numbered(4, times=[0, 0, 0, 1]), 0.5)
    assert (rows(most[0]), rows(most[1])) == ([0, 1, 2], [3])


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_group_folds_are_scikit_learns(folds):
    groups = np.random.default_rng(folds).integers(0, 9, 60)
    theirs = GroupKFold(folds).split(np.zeros(60), groups=groups)
    ours = dg.group_folds(numbered(60, groups=groups), folds)
    assert [(rows(a), rows(b)) for a, b in ours] == [(a.tolist(), b.tolist()) for a, b in theirs]


def test_group_split_divides_no_group_and_comes_near_its_share():
    groups = np.random.default_rng(1).choice(["ann", "bob", "cid", "dan", "eve", "fay", "gil"], 200)
    data = numbered(200, groups=groups)
    for seed in range(5):
        first, rest = dg.group_split(data, 0.7, seed=seed)
        assert not set(first.groups) & set(rest.groups) and len(first) + len(rest) == 200
        assert abs(len(first) - 140) <= np.unique(groups, return_counts=True)[1].max() / 2
    assert rows(dg.group_split(data, 0.7, seed=3)[0]) == rows(dg.group_split(data, 0.7, seed=3)[0])


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(4, 40), st.integers(2, 4), st.booleans(), st.booleans())
def test_folds_within_a_fit_divide_no_group_and_no_time_and_lose_nothing(drawn, n, folds, timed, grouped):
    labels = st.lists(st.integers(0, n), min_size=n, max_size=n)
    times = np.array(drawn.draw(labels)) if timed else None
    groups = np.array(drawn.draw(labels)) if grouped else None
    data, rng = numbered(n, times=times, groups=groups), np.random.default_rng(0)
    ordered = drawn.draw(st.sampled_from([None, False, True]))
    try:
        parts = folds_of(data, folds, ordered, rng)
        kept, held = held_out(data, 0.3, ordered, rng)
    except dg.ModelError as error:
        known = [label for label in (groups, times) if label is not None]
        assert known and len(np.unique(known[0])) < n and "group" in str(error)
        return
    line = np.arange(n) if times is None else times
    for several in (parts, [kept, held]):
        assert sorted(np.concatenate(several)) == list(range(n)) and all(len(part) for part in several)
        if grouped:
            assert sum(len(set(groups[part])) for part in several) == len(set(groups))
        elif ordered or (timed and ordered is None):
            for before, after in itertools.pairwise(several):
                assert line[before].max() < line[after].min()
    if not grouped and len(np.unique(line)) == n:  # without ties, sizes differ by one sample at most
        assert np.ptp([len(part) for part in parts]) <= 1 and len(held) == min(max(round(0.3 * n), 1), n - 1)


def test_ordered_groups_stand_where_their_first_sample_does():
    times = np.array([5, 0, 9, 1, 2, 8, 3, 7])
    groups = np.array(list("baabccdd"))  # first seen at 0 (a), 1 (b), 2 (c), 3 (d)
    parts = folds_of(numbered(8, times=times, groups=groups), 4, None, None)
    assert [set(groups[part]) for part in parts] == [{"a"}, {"b"}, {"c"}, {"d"}]
    assert parts[0].tolist() == [1, 2] and parts[1].tolist() == [3, 0]  # in time within
    kept, held = held_out(numbered(8, times=times, groups=groups), 0.4, None, None)
    assert set(groups[kept]) == {"a", "b"} and set(groups[held]) == {"c", "d"}


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (lambda d: list(dg.walk_forward(d, 5, gap=9)), "fold 0 of 5 has no training samples"),
        (lambda d: list(dg.walk_forward(d, 10)), "test must be an integer of at least 1, got 0"),
        (lambda d: list(dg.walk_forward(d, 4, test=3)), "fold 0 of 4 has no training samples"),
        (lambda d: list(dg.walk_forward(d, 0)), "folds must be an integer of at least 1, got 0"),
        (lambda d: list(dg.walk_forward(d, 2, gap=-1)), "gap must be an integer of at least 0"),
        (lambda d: list(dg.walk_forward(d, 2, gap=datetime.timedelta(days=1))), "times that are numbers"),
        (lambda d: list(dg.walk_forward(d, train=3)), "needs folds=, or the lengths train= and test="),
        (lambda d: list(dg.walk_forward(d, train=3, test=0)), "test must be an integer of at least 1"),
        (lambda d: dg.time_split(d, 0.5, gap=8), "one part empty"),
        (lambda d: dg.time_split(d, 1.5), "between 0 and 1"),
        (lambda d: list(dg.group_folds(d, 3)), "2 groups cannot fill 3 folds"),
        (lambda d: list(dg.group_folds(numbered(4), 2)), "the dataset has no groups"),
        (lambda d: dg.group_split(d.take(d.groups == "a"), 0.5), "one group only"),
        (lambda d: folds_of(d, 3, None, None), "2 times or groups, .* cannot fill 3 parts"),
        (lambda d: held_out(numbered(4, times=np.zeros(4)), 0.5, None, None), "1 times or groups"),
        (lambda d: dg.time_split(numbered(4, times=np.zeros(4)), 0.5), "one time only"),
        (lambda d: numbered(4, times=[1, 2]), r"times must be \[4\]"),
        (lambda d: numbered(2, times=np.array(["2024-01-01", "NaT"], "M8[D]")), "times: row 1 has no value"),
        (lambda d: numbered(2, groups=["a", None]), "groups: row 1 has no value"),
    ],
)
def test_what_cannot_be_split_is_refused(split, message):
    data = numbered(10, times=np.arange(10), groups=np.array(list("aaaabbbbbb")))
    with pytest.raises(dg.ModelError, match=message):
        split(data)
