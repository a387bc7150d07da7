"""Splits that keep the future, and members of a group, out of training.

Samples of one time are never divided between training and test, and a gap leaves out what lies between.
`folds_of` and `held_out` are the splits within `fit`: they follow the times and groups that the data have.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, TypeVar

import numpy as np

from decigrad.errors import ModelError

if TYPE_CHECKING:
    from decigrad.data import Dataset

Span: TypeAlias = int | datetime.timedelta | np.timedelta64
"""A number of rows, or a length of time."""
TIME = datetime.timedelta | np.timedelta64  # NumPy counts its spans of time among the integers


class Samples(Protocol):
    """What can be divided in time: a `Dataset`, or a table of a problem's own."""

    @property
    def times(self) -> Any:
        """[N], or None."""

    def __len__(self) -> int: ...

    def take(self, index: np.ndarray, /) -> Self:
        """The samples at the given positions."""


S = TypeVar("S", bound=Samples)


def walk_forward(
    data: S,
    folds: int | None = None,
    *,
    gap: Span = 0,
    train: Span | None = None,
    test: Span | None = None,
) -> Iterator[tuple[S, S]]:
    """Training and test data of tests that follow each other in time, up to the end of the data.

    Fold i is tested on the i-th of the last `folds` periods and trained on what lies before it, less the gap:

        ....train.... gap [test 1]
        ........train........ gap [test 2]
        ............train............ gap [test 3]

    Order is that of `data.times`, or of the rows where there are none. Lengths are numbers of rows or, where
    times are dates, spans of time (`datetime.timedelta`, `numpy.timedelta64`); in rows, a boundary among
    samples of the same time moves before all of them.

    Args:
        data: the samples.
        folds: how many tests. None: as many as follow a first training window and its gap, the last one as
            long as the data last.
        gap: what is left out between training and test: as long as it takes until a target is known, or
            as targets overlap.
        train: length of the training window; default: everything before.
        test: length of one test; default: N / (folds + 1) rows.

    Raises:
        ModelError: a fold that has no training or no test samples; a span of time without dates; neither
            `folds` nor both lengths.
    """
    n = len(data)
    order, times = _in_time(data)
    if folds is None:
        starts = _from_the_first(data, times, gap, train, test)
    else:
        starts = _to_the_last(data, times, folds, test)
    folds = len(starts)
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], n], strict=True)):
        if not 0 < start < end:
            missing = "test" if start >= end else "training"
            raise ModelError(
                f"walk_forward: fold {number} of {folds} has no {missing} samples: use fewer folds"
            )
        last = _before(data, times, start, gap, "gap")
        first = 0 if train is None else _window(data, times, start, last, gap, train)
        if last <= first:
            raise ModelError(
                f"walk_forward: fold {number} of {folds} has no training samples: use fewer folds, shorter "
                f"tests or a shorter gap, or a longer training window"
            )
        yield data.take(order[first:last]), data.take(order[start:end])


def _to_the_last(data: Samples, times: np.ndarray, folds: int, test: Span | None) -> list[int]:
    """Where tests begin, the last of which ends with the data."""
    n = len(times)
    _check("folds", folds, 1)
    if not isinstance(test, TIME):
        size = n // (folds + 1) if test is None else test
        _check("test", size, 1)
        return [_whole(times, n - (folds - i) * size) for i in range(folds)]
    span = _span(data, "test", test)
    return [int(np.searchsorted(times, times[-1] - (folds - i) * span, "right")) for i in range(folds)]


def _from_the_first(
    data: Samples, times: np.ndarray, gap: Span, train: Span | None, test: Span | None
) -> list[int]:
    """Where tests begin, the first of which follows the first training window and its gap."""
    n = len(times)
    if train is None or test is None:
        raise ModelError("walk_forward needs folds=, or the lengths train= and test=")
    first = 0
    for name, length in (("train", train), ("gap", gap)):
        if isinstance(length, TIME):
            first = int(np.searchsorted(times, times[first] + _span(data, name, length), "left"))
        else:
            _check(name, length, 0 if name == "gap" else 1)
            first = _whole(times, first + length)
        if first >= n:
            raise ModelError(
                f"walk_forward: {n} samples are too few for a first window of {train}, gap {gap}"
            )
    if not isinstance(test, TIME):
        _check("test", test, 1)
        return [_whole(times, start) for start in range(first, n, test)]
    span, starts = _span(data, "test", test), [first]
    if not span > np.timedelta64(0):
        raise ModelError(f"test must be positive, got {test}")
    while (following := times[first] + len(starts) * span) <= times[-1]:
        starts.append(int(np.searchsorted(times, following, "left")))
    return starts


def time_split(data: Dataset, fraction: float, *, gap: Span = 0) -> tuple[Dataset, Dataset]:
    """The first `fraction` of the samples in the order of time, and the rest, less a gap before it.

    Args:
        data: the samples.
        fraction: share of the samples before the boundary.
        gap: rows, or a span of time, left out at the end of the first part.

    Raises:
        ModelError: a part would be empty.
    """
    _check_fraction("time_split", fraction)
    n = len(data)
    order, times = _in_time(data)
    start = _whole(times, min(max(round(fraction * n), 1), n - 1))
    if start == 0:  # the first time fills more than the first part
        start = int(np.searchsorted(times, times[0], "right"))
    last = _before(data, times, start, gap, "gap")
    if last <= 0 or start >= n:
        raise ModelError(
            f"time_split: {fraction:g} of {n} samples leaves one part empty: a gap too long, or one time only"
        )
    return data.take(order[:last]), data.take(order[start:])


def group_folds(data: Dataset, folds: int) -> Iterator[tuple[Dataset, Dataset]]:
    """Training and test data of `folds` folds that never divide a group of `data.groups`.

    The largest groups are dealt first, each to the fold that has the fewest samples, so that the folds are of
    nearly equal size.

    Raises:
        ModelError: no groups, or fewer groups than folds.
    """
    _check("folds", folds, 2)
    fold = _dealt(data, folds)
    for number in range(folds):
        yield data.take(fold != number), data.take(fold == number)


def group_split(data: Dataset, fraction: float, *, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Two datasets with about `fraction` and 1 − `fraction` of the samples and no group in both.

    Groups are drawn with `seed` until the first part is as close to its share as it gets.

    Raises:
        ModelError: no groups, or one only.
    """
    _check_fraction("group_split", fraction)
    first = _drawn(data, fraction, np.random.default_rng(seed))
    return data.take(first), data.take(~first)


def folds_of(data: Dataset, folds: int, ordered: bool | None, rng: Any) -> list[np.ndarray]:
    """Positions that each of several folds holds out, every sample in one of them.

    Where `ordered` (None: where the data have times), folds are blocks that follow each other in time, and
    samples of one time stay together; else `rng` shuffles. Groups are never divided: they are dealt as by
    `group_folds`, or stand where their first sample stands in time.

    Raises:
        ModelError: too few groups or times.
    """
    if _is_ordered(data, ordered):
        order, labels = _in_line(data)
        sizes = [len(part) for part in np.array_split(order, folds)]
        return np.split(order, _between(labels, np.cumsum(sizes)[:-1]))
    if data.groups is None:
        return np.array_split(rng.permutation(len(data)), folds)
    fold = _dealt(data, folds)
    return [np.flatnonzero(fold == number) for number in range(folds)]


def held_out(data: Dataset, fraction: float, ordered: bool | None, rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """Positions of what is kept, and of about `fraction` of the samples that are held out: the last ones
    where `ordered`, else drawn by `rng`; whole groups and times as in `folds_of`.

    Raises:
        ModelError: one group or one time only.
    """
    n = len(data)
    start = n - min(max(round(fraction * n), 1), n - 1)
    if _is_ordered(data, ordered):
        order, labels = _in_line(data)
        start = _between(labels, np.array([start]))[0]
        return order[:start], order[start:]
    if data.groups is None:
        order = rng.permutation(n)
        return order[:start], order[start:]
    held = _drawn(data, fraction, rng)
    return np.flatnonzero(~held), np.flatnonzero(held)


def _is_ordered(data: Dataset, ordered: bool | None) -> bool:
    return data.times is not None if ordered is None else ordered


def _in_time(data: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the order of time, and their times; those of rows where times are not known."""
    if data.times is None:
        return np.arange(len(data)), np.arange(len(data))
    order = np.argsort(data.times, kind="stable")
    return order, data.times[order]


def _in_line(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the order of time, groups together, and labels that change where they may be cut."""
    order, times = _in_time(data)
    if data.groups is None:
        return order, times
    which = _grouped(data)[0][order]
    first = np.unique(which, return_index=True)[1][which]
    return order[np.argsort(first, kind="stable")], np.sort(first)


def _between(labels: np.ndarray, cuts: np.ndarray) -> list[int]:
    """The cuts, each moved to the nearest place where the labels change."""
    places = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    found = [int(places[np.argmin(np.abs(places - cut))]) for cut in cuts] if len(places) else []
    if len(set(found)) < len(cuts):
        raise ModelError(
            f"{len(places) + 1} times or groups, some of them large, cannot fill {len(cuts) + 1} parts that "
            f"follow each other: use fewer folds, or ordered=False"
        )
    return found


def _dealt(data: Dataset, folds: int) -> np.ndarray:
    """The fold of each sample, [N]: largest groups first, each to the fold that has the fewest samples."""
    which, sizes = _grouped(data)
    if len(sizes) < folds:
        raise ModelError(f"{len(sizes)} groups cannot fill {folds} folds: use fewer folds")
    fold, filled = np.zeros(len(sizes), int), np.zeros(folds, int)
    for group in np.argsort(sizes, kind="stable")[::-1]:
        fold[group] = np.argmin(filled)
        filled[fold[group]] += sizes[group]
    return fold[which]


def _drawn(data: Dataset, fraction: float, rng: Any) -> np.ndarray:
    """[N], whether a sample is of the groups that were drawn until they are as near to a share as it gets."""
    which, sizes = _grouped(data)
    if len(sizes) < 2:
        raise ModelError("there is one group only, and it cannot be divided")
    order = rng.permutation(len(sizes))
    reached = np.cumsum(sizes[order])[:-1]
    count = 1 + int(np.argmin(np.abs(reached - fraction * len(data))))
    return np.isin(which, order[:count])


def _whole(times: np.ndarray, start: int) -> int:
    """A boundary in rows, moved before all samples of its time."""
    return int(np.searchsorted(times, times[start], "left")) if 0 < start < len(times) else start


def _before(data: Samples, times: np.ndarray, start: int, length: Span, name: str) -> int:
    """The boundary that lies a length before another one."""
    if not isinstance(length, TIME):
        _check(name, length, 0)
        return _whole(times, start - length)
    span = _span(data, name, length)
    return int(np.searchsorted(times, times[start] - span, "left"))


def _window(data: Samples, times: np.ndarray, start: int, last: int, gap: Span, train: Span) -> int:
    """Where the training window begins that ends a gap before a test."""
    if not isinstance(train, TIME):
        _check("train", train, 1)
        return _whole(times, max(last - train, 0))
    span = _span(data, "train", train)
    if last <= 0:
        return 0
    end = times[start] - _span(data, "gap", gap) if isinstance(gap, TIME) else times[last]
    return int(np.searchsorted(times, end - span, "left"))


def _span(data: Samples, name: str, length: Span) -> np.timedelta64:
    if data.times is None or data.times.dtype.kind != "M":
        kind = "has no times" if data.times is None else "has times that are numbers"
        raise ModelError(f"{name} is a span of time, but the dataset {kind}: give a number of rows")
    span = np.timedelta64(length)
    if not span >= np.timedelta64(0):
        raise ModelError(f"{name} must not be negative, got {length}")
    return span


def _grouped(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The number of each sample's group, and the size of each group."""
    if data.groups is None:
        raise ModelError("the dataset has no groups: pass groups= to Dataset, or group= to Columns")
    _, which, sizes = np.unique(data.groups, return_inverse=True, return_counts=True)
    return which, sizes


def _check(name: str, value: int, least: int) -> None:
    if not isinstance(value, int | np.integer) or value < least:
        raise ModelError(f"{name} must be an integer of at least {least}, got {value!r}")


def _check_fraction(name: str, fraction: float) -> None:
    if not 0.0 < fraction < 1.0:
        raise ModelError(f"{name}: fraction must lie between 0 and 1, got {fraction}")
