"""Irish electricity prices: a knapsack of half-hours, and machines scheduled against the price.

**Energy knapsack**: 48 half-hours of a day are items with weights 3, 5 and 7 and predicted values; maximize
the value of those that fit a capacity.

**Energy-cost aware scheduling**: every task j runs once, without a break, on one machine within its window;
each machine has a capacity for the resource that running tasks use:

    minimize    Σₜ priceₜ · hours per slot · Σⱼ powerⱼ · [j runs in slot t]

Start-up, shut-down and idle costs of the machines are left out, as in the papers below.

The files are read from paths of yours; they come from the ICON challenge on energy-cost aware scheduling
(prices: Single Electricity Market Operator of Ireland) by way of the PredOpt benchmarks (MIT license).

Source: Mandi, Demirović, Stuckey and Guns (2020), "Smart Predict-and-Optimize for Hard Combinatorial
Optimization Problems", AAAI, doi:10.1609/aaai.v34i02.5521.
"""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.problems.knapsack import knapsack_model

SLOTS = 48
FEATURES = (
    "HolidayFlag", "DayOfWeek", "WeekOfYear", "Month",
    "ForecastWindProduction", "SystemLoadEA", "SMPEA", "CO2Intensity",
)  # fmt: skip
"""What is known the day before, for every half-hour: calendar and forecasts."""

PUBLISHED: dict[str, dict[str, dict[Any, int]]] = {
    "knapsack": {
        "two-stage": {60: 989, 120: 1090, 180: 433},
        "map": {60: 764, 120: 562, 180: 327},
    },
    "scheduling": {"two-stage": {"load1": 43_384}, "map": {"load1": 41_236}},
}
"""Test regret, not normalized: per day, by capacity of the knapsack; by instance of the scheduling. Mulamba,
Mandi, Diligenti, Lombardi, Bucarey and Guns (2021), "Contrastive Losses and Solution Caching for Predict-and-
Optimize", IJCAI, doi:10.24963/ijcai.2021/390. Days are split as by `energy_split`; linear predictors that all
half-hours share."""


@dataclass(frozen=True)
class EnergyDays:
    """Days in time order.

    `dates` [D], `features` [D, 48, 8] (named by `FEATURES`), `prices` [D, 48] in EUR/MWh.
    """

    dates: np.ndarray
    features: np.ndarray
    prices: np.ndarray

    def __len__(self) -> int:
        return len(self.dates)


def load_energy_prices(path: str | Path) -> EnergyDays:
    """Read half-hourly prices and what was known about them the day before.

    A CO2 intensity that is missing, or zero, is interpolated between the half-hours of its day. Days with any
    other missing value are dropped: three of 792 in `prices2013.dat`.

    Args:
        path: a text file with columns separated by spaces; its header begins with `#DateTime` and names the
            `FEATURES` and `SMPEP2`, the price. 48 rows a day, in order.

    Raises:
        FileNotFoundError: there is no such file.
        ModelError: a column is missing, a value is not a number, or a day does not have 48 rows.
    """
    path = _existing(path, "energy prices")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file, delimiter=" ", quotechar='"', skipinitialspace=True)
        header = [name.lstrip("#") for name in next(reader, []) if name]
        wanted = ("DateTime", *FEATURES, "SMPEP2")
        missing = [name for name in wanted if name not in header]
        if missing:
            raise ModelError(
                f"{path}: column(s) {', '.join(missing)} missing; found {', '.join(header) or 'none'}"
            )
        columns = [header.index(name) for name in wanted]
        days: dict[str, list[list[float]]] = {}
        for line, row in enumerate(reader, start=2):
            try:
                _, date, _ = row[columns[0]].split()
                values = [float(row[column]) for column in columns[1:]]
            except (IndexError, ValueError) as error:
                raise ModelError(f"{path}, line {line}: {error}") from error
            days.setdefault(date, []).append(values)
    for date, rows in days.items():
        if len(rows) != SLOTS:
            raise ModelError(f"{path}: {date} has {len(rows)} rows, not {SLOTS}")
    if not days:
        raise ModelError(f"{path}: no rows below the header")
    table = np.array([_without_gaps(np.array(rows)) for rows in days.values()])
    dates = np.array([_iso(date, path) for date in days], dtype="datetime64[D]")
    whole = np.isfinite(table).all(axis=(1, 2))
    if not whole.any():
        raise ModelError(f"{path}: every day has missing values")
    return EnergyDays(dates[whole], table[whole, :, :-1], table[whole, :, -1])


def energy_split(
    days: int = 789, seed: int = 0, *, train: int = 550, validation: int = 100
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of the training, validation and test days: shuffled, as `sklearn.utils.shuffle` does.

    >>> [len(part) for part in energy_split()]
    [550, 100, 139]
    """
    if train < 1 or validation < 0 or train + validation >= days:
        raise ModelError(f"{days} days cannot be split into {train}, {validation} and at least one for tests")
    order = np.arange(days)
    np.random.RandomState(seed).shuffle(order)
    first, second, third = np.split(order, [train, train + validation])
    return first, second, third


# --------------------------------------------------------------------------------------------- knapsack


@dataclass(frozen=True)
class EnergyKnapsack:
    """Features [D, 48, 8] (named by `FEATURES`), values [D, 48] and the weights [48] of the items."""

    features: np.ndarray
    values: np.ndarray
    weights: np.ndarray


def load_energy_knapsack(path: str | Path) -> EnergyKnapsack:
    """Read the knapsack's 789 days, in time order.

    Args:
        path: an `.npz` file with `X_1gtrain`, `X_1gtest` [D·48, 9] (a group, then the features), `y_train`,
            `y_test` [D·48] and `weights` [48].

    Raises:
        FileNotFoundError: there is no such file.
        ModelError: it is no `.npz` file, an array is missing, or shapes do not fit.
    """
    path = _existing(path, "energy knapsack")
    names = ("X_1gtrain", "X_1gtest", "y_train", "y_test", "weights")
    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path}: not an .npz file")
    with np.load(path, allow_pickle=False) as file:
        missing = [name for name in names if name not in file]
        if missing:
            raise ModelError(f"{path}: array(s) {', '.join(missing)} missing; found {', '.join(file)}")
        train, test, values, more, weights = (np.asarray(file[name], np.float64) for name in names)
    width = len(FEATURES) + 1
    if any(x.ndim != 2 or x.shape[1] != width or len(x) % SLOTS for x in (train, test)):
        raise ModelError(
            f"{path}: features must be [days · {SLOTS}, {width}], got {train.shape}, {test.shape}"
        )
    if values.shape != train.shape[:1] or more.shape != test.shape[:1] or weights.shape != (SLOTS,):
        raise ModelError(
            f"{path}: values {values.shape}, {more.shape} or weights {weights.shape} do not fit the features"
        )
    features = np.concatenate([train, test])[:, 1:].reshape(-1, SLOTS, len(FEATURES))
    return EnergyKnapsack(features, np.concatenate([values, more]).reshape(-1, SLOTS), weights)


def energy_knapsack_layer(weights: Any, capacity: int = 120) -> dg.DecisionLayer:
    """The knapsack of parameter `value` and variable `x`, [n] each, solved by dynamic programming.

    Args:
        weights: [n], whole numbers.
        capacity: a whole number; 60, 120 and 180 in the papers.
    """
    model = knapsack_model(np.array(weights, np.float64)[None], float(capacity))
    return dg.DecisionLayer(model, solver=dg.oracles.Knapsack(weights, capacity))


# ------------------------------------------------------------------------------------------- scheduling


@dataclass(frozen=True)
class SchedulingInstance:
    """Machines and tasks.

    `minutes` of a slot; `capacity` [machines]; by task [n]: `duration`, `earliest` start and `latest` end in
    slots, `power` in the unit in which energy is priced per hour, and `use` of the resource while it runs.
    """

    minutes: float
    capacity: np.ndarray
    duration: np.ndarray
    earliest: np.ndarray
    latest: np.ndarray
    power: np.ndarray
    use: np.ndarray

    @property
    def slots(self) -> int:
        """Slots in a day."""
        return round(24 * 60 / self.minutes)


def load_scheduling(path: str | Path) -> SchedulingInstance:
    """Read a scheduling instance of the ICON challenge with one resource.

    Lines: slot length in minutes; number of resources; number of machines; for each machine `id idle up down`
    (costs, ignored) and its capacity; number of tasks; for each task `id duration earliest latest power` and
    its use of the resource.

    Raises:
        FileNotFoundError: there is no such file.
        ModelError: the file ends early, goes on too long, or holds something else than these numbers.
    """
    path = _existing(path, "scheduling instance")
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    position = 0

    def numbers(count: int, what: str) -> list[float]:
        nonlocal position
        if position == len(lines):
            raise ModelError(f"{path}: ends before {what}")
        try:
            values = [float(word) for word in lines[position]]
        except ValueError as error:
            raise ModelError(f"{path}, {what}: {error}") from error
        if len(values) != count:
            raise ModelError(f"{path}, {what}: expected {count} number(s), got {len(values)}")
        position += 1
        return values

    (minutes,) = numbers(1, "slot length")
    (resources,) = numbers(1, "number of resources")
    if minutes <= 0 or resources != 1:
        raise ModelError(f"{path}: needs a positive slot length and one resource, got {minutes}, {resources}")
    capacity = []
    for k in range(int(numbers(1, "number of machines")[0])):
        numbers(4, f"machine {k}")
        capacity += numbers(1, f"capacity of machine {k}")
    tasks = []
    for k in range(int(numbers(1, "number of tasks")[0])):
        tasks.append([*numbers(5, f"task {k}")[1:], *numbers(1, f"use of task {k}")])
    if position != len(lines):
        raise ModelError(f"{path}: {len(lines) - position} line(s) after the last task")
    if not capacity or not tasks:
        raise ModelError(f"{path}: there must be at least one machine and one task")
    duration, earliest, latest, power, use = np.array(tasks).T
    return SchedulingInstance(
        minutes,
        np.array(capacity),
        duration.astype(int),
        earliest.astype(int),
        latest.astype(int),
        power,
        use,
    )


def scheduling_model(instance: SchedulingInstance) -> dg.Model:
    """The scheduling program: parameter `price` [slots] per unit of energy, decided day by day.

    Binary variable `start`: one entry for each task, machine and slot in which the task may start there, in
    the order of `scheduling_starts`.

    Raises `ModelError` if a task does not fit its window or any machine.
    """
    starts = scheduling_starts(instance)
    task, machine, slot = starts.T
    time = np.arange(instance.slots)
    runs = (time >= slot[:, None]) & (time < (slot + instance.duration[task])[:, None])  # [starts, slots]
    energy = runs * (instance.power[task] * instance.minutes / 60.0)[:, None]
    once = (task == np.arange(len(instance.duration))[:, None]).astype(float)
    on = machine == np.arange(len(instance.capacity))[:, None]  # [machines, starts]
    load = (on[:, None, :] * (runs * instance.use[task][:, None]).T).reshape(-1, len(starts))
    capacity = np.repeat(instance.capacity, instance.slots)
    tight = load.sum(axis=1) > capacity  # the others cannot be exceeded
    m = dg.Model(f"scheduling of {len(instance.duration)} tasks")
    start = m.binary("start", shape=len(starts))
    price = m.parameter("price", shape=instance.slots)
    m.minimize(price @ (energy.T @ start))
    m.subject_to(once @ start == 1.0, name="once")
    if tight.any():
        m.subject_to(load[tight] @ start <= capacity[tight], name="capacity")
    return m


def scheduling_starts(instance: SchedulingInstance) -> np.ndarray:
    """The possible starts [n, 3]: task, machine, slot."""
    rows = []
    for j, (duration, use) in enumerate(zip(instance.duration, instance.use, strict=True)):
        last = min(instance.latest[j], instance.slots) - duration
        found = [
            (j, k, t)
            for k in np.flatnonzero(instance.capacity >= use).tolist()
            for t in range(instance.earliest[j], last + 1)
        ]
        if not found:
            raise ModelError(f"task {j} does not fit: its window is too short, or it exceeds every machine")
        rows += found
    return np.array(rows)


# ---------------------------------------------------------------------------------------------- reading


def _existing(path: str | Path, what: str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no {what} at {path}: expected a file of the ICON / PredOpt benchmark")
    return path


def _iso(date: str, path: Path) -> str:
    parts = date.split("/")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise ModelError(f"{path}: expected a date as day/month/year, got {date!r}")
    day, month, year = map(int, parts)
    return f"{year:04d}-{month:02d}-{day:02d}"


def _without_gaps(day: np.ndarray) -> np.ndarray:
    """Fill the CO2 intensity [48 rows, features and price] where it is missing or zero."""
    column = FEATURES.index("CO2Intensity")
    known = np.isfinite(day[:, column]) & (day[:, column] != 0)
    if known.any():
        slots = np.arange(len(day))
        day[:, column] = np.interp(slots, slots[known], day[known, column])
    return day
