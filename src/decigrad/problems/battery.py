"""Battery arbitrage over the next day's prices: the grid storage problem of Donti, Amos and Kolter (2017).

A battery of capacity B starts the day half full, and its charge and discharge are fixed a day ahead:

    minimize    Σₜ pₜ (inₜ − outₜ) + λ Σₜ (sₜ − B/2)² + ε Σₜ inₜ² + ε Σₜ outₜ²
    subject to  sₜ = sₜ₋₁ − outₜ + γ inₜ,   s₀ = B/2,          t = 1 … 24
                0 ≤ inₜ ≤ c_in,  0 ≤ outₜ ≤ c_out,  0 ≤ sₜ ≤ B

p is the price in USD/MWh, so the objective is in USD per day for a battery of B MWh. λ asks for flexibility
(a battery that is neither full nor empty), ε for the health of the battery. The price is unknown when the
schedule is made; the model's parameter is its logarithm, which enters as exp(log_price) — one of the places
where a parameter is not affine and a disciplined-parametrized layer would refuse it.

The paper's own implementation (github.com/locuslab/e2e-model-learning) differs from its formula: it scores
schedules on log prices, centres the state at B instead of B/2, leaves the last hour's discharge free of the
state, and takes no optimizer step for the task network. Here decision and score are the formula above, with
the state after the last hour bounded and priced too; so the figures are not comparable to the paper's table.

Source: P. L. Donti, B. Amos, J. Z. Kolter, "Task-based End-to-end Model Learning in Stochastic Optimization",
NeurIPS 2017, section 4.3, arXiv:1703.04529.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from decigrad import modeling as dm
from decigrad.errors import ModelError

HOURS = 24
COLUMNS = ("datetime", "da_price", "load_forecast", "temp_dca")
PAPER_WEIGHTS = ((0.1, 0.05), (1.0, 0.5), (10.0, 5.0), (35.0, 15.0))
"""The four pairs (λ, ε) of the paper's table, from nearly linear to strongly curved."""


@dataclass(frozen=True)
class BatterySpec:
    """A battery: sizes in MWh and MWh per hour, weights in USD; the defaults are the paper's first row.

    `flexibility` is λ, `health` is ε, `efficiency` is γ: the share of the energy bought that is stored.
    """

    capacity: float = 1.0
    efficiency: float = 0.9
    charge_limit: float = 0.5
    discharge_limit: float = 0.2
    flexibility: float = 0.1
    health: float = 0.05

    def __post_init__(self) -> None:
        for name in ("capacity", "charge_limit", "discharge_limit"):
            if not getattr(self, name) > 0:
                raise ModelError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 < self.efficiency <= 1:
            raise ModelError(f"efficiency must be in (0, 1], got {self.efficiency}")
        if self.flexibility < 0 or self.health < 0:
            raise ModelError("flexibility and health must not be negative")


def battery_model(spec: BatterySpec | None = None, *, hours: int = HOURS) -> dm.Model:
    """The arbitrage program above, in `charge`, `discharge` and `state` (each [hours]).

    Parameter `log_price` [hours]: natural logarithm of the price in USD/MWh. The objective, to be
    minimized, is in USD per day; a profit is negative.
    """
    spec = spec or BatterySpec()
    half = spec.capacity / 2
    model = dm.Model("battery")
    charge = model.continuous("charge", shape=hours, lb=0.0, ub=spec.charge_limit)
    discharge = model.continuous("discharge", shape=hours, lb=0.0, ub=spec.discharge_limit)
    state = model.continuous("state", shape=hours, lb=0.0, ub=spec.capacity)
    price = dm.exp(model.parameter("log_price", shape=hours))
    off_centre = state - half
    model.minimize(
        dm.sum(price * (charge - discharge))
        + spec.flexibility * dm.sum(off_centre * off_centre)
        + spec.health * (dm.sum(charge * charge) + dm.sum(discharge * discharge))
    )
    model.subject_to(state[0] == half - discharge[0] + spec.efficiency * charge[0], name="first hour")
    model.subject_to(
        state[1:] == state[:-1] - discharge[1:] + spec.efficiency * charge[1:], name="later hours"
    )
    return model


# ------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class BatteryDays:
    """One row per day whose schedule is to be made, in time order.

    `features` [D, F] are what is known the day before (the weather and load of the day itself as forecasts),
    `log_prices` [D, 24] what is to be predicted, `dates` [D] datetime64[D], `names` [F] the features.
    """

    dates: np.ndarray
    features: np.ndarray
    log_prices: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.dates)

    @property
    def times(self) -> np.ndarray:
        """The dates, as `walk_forward` asks for them."""
        return self.dates

    @property
    def prices(self) -> np.ndarray:
        """Prices [D, 24] in USD/MWh."""
        return np.exp(self.log_prices)

    def take(self, index: np.ndarray | slice) -> BatteryDays:
        """The days `index`, in that order."""
        rows = {name: getattr(self, name)[index] for name in ("dates", "features", "log_prices")}
        return dataclasses.replace(self, **rows)


def load_battery_days(path: str | Path, *, price_cap: float | None = 500.0) -> BatteryDays:
    """Read hourly prices, load forecasts and temperatures, and turn them into days.

    Features of day d, as in the paper: logarithm of the 24 prices of day d − 1; load forecast of day d;
    temperature of day d − 1 and its square; temperature of day d (standing for its forecast), its square and
    cube; weekend, federal holiday, daylight saving time, cosine and sine of the day of the year: 173 columns,
    not standardized (use `standardized` with the training days alone).

    Arguments:
        path: a CSV file with the columns `datetime` (ISO, hourly), `da_price` (USD/MWh), `load_forecast`
            (MW) and `temp_dca` (°F), 24 rows a day; missing temperatures within a day are interpolated.
        price_cap: days with an hour above it are dropped, as the paper does (500 USD/MWh: six days of
            January 2014); None keeps them. Days with a price that is not positive have no logarithm and are
            always dropped. Note that a cap looks at the very day that is scored: it is a rule of the
            benchmark, not one that could be followed in operation.

    Returns:
        The days for which the day before is usable too.

    Raises:
        FileNotFoundError: there is no such file.
        ModelError: a column is missing, a value is not a number, or no pair of consecutive days remains.

    Source: `battery_storage/storage_data.csv` of locuslab/e2e-model-learning (Apache-2.0), 2011–2016.
    """
    table = _read_days(Path(path))
    usable: dict[datetime.date, np.ndarray] = {}
    for date, values in table.items():
        filled = _fill_temperature(values)
        price = filled[0]
        if np.isfinite(filled).all() and price.min() > 0 and (price_cap is None or price.max() <= price_cap):
            usable[date] = filled
    rows = [(d, usable[d - _ONE_DAY], usable[d]) for d in sorted(usable) if d - _ONE_DAY in usable]
    if not rows:
        raise ModelError(f"{path}: no two consecutive complete days with positive prices")
    return BatteryDays(
        dates=np.array([d for d, _, _ in rows], dtype="datetime64[D]"),
        features=np.stack([_day_features(d, before, day) for d, before, day in rows]),
        log_prices=np.stack([np.log(day[0]) for _, _, day in rows]),
        names=_feature_names(),
    )


def standardized(train: BatteryDays, *others: BatteryDays) -> tuple[BatteryDays, ...]:
    """`train` and `others` with features shifted and scaled by the means and deviations of `train` alone.

    A column that is constant over `train` becomes zero in all of them.
    """
    mean, deviation = train.features.mean(axis=0), train.features.std(axis=0)
    scale = np.where(deviation > 1e-12 * np.maximum(1.0, np.abs(mean)), deviation, np.inf)
    return tuple(
        dataclasses.replace(days, features=(days.features - mean) / scale) for days in (train, *others)
    )


# ---------------------------------------------------------------------------------------------- reading

_ONE_DAY = datetime.timedelta(days=1)
_MEASURES = COLUMNS[1:]


def _read_days(path: Path) -> dict[datetime.date, np.ndarray]:
    """Complete days as [3 measures, 24 hours]; a missing value is NaN."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no battery data at {path}: expected a CSV file with columns {', '.join(COLUMNS)}"
        )
    days: dict[datetime.date, np.ndarray] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            found = ", ".join(reader.fieldnames or ()) or "none"
            raise ModelError(f"{path}: column(s) {', '.join(missing)} missing; found {found}")
        for line, row in enumerate(reader, start=2):
            try:
                moment = datetime.datetime.fromisoformat(row["datetime"])
                values = [float(row[name]) if row[name] else np.nan for name in _MEASURES]
            except (TypeError, ValueError) as error:
                raise ModelError(f"{path}, line {line}: {error}") from error
            day = days.setdefault(moment.date(), np.full((len(_MEASURES), HOURS), np.nan))
            day[:, moment.hour] = values
    if not days:
        raise ModelError(f"{path}: no rows below the header")
    return days


def _fill_temperature(day: np.ndarray) -> np.ndarray:
    """Interpolate missing temperatures between the hours of the same day (the nearest hour at its ends)."""
    temperature = day[2]
    known = np.isfinite(temperature)
    if known.all() or not known.any():
        return day
    hours = np.arange(HOURS)
    return np.stack([day[0], day[1], np.interp(hours, hours[known], temperature[known])])


def _day_features(date: datetime.date, before: np.ndarray, day: np.ndarray) -> np.ndarray:
    angle = 2 * np.pi * date.timetuple().tm_yday / 365
    calendar = [date.isoweekday() >= 6, date in _holidays(date.year), _daylight_saving(date)]
    past, future = before[2], day[2]
    blocks = [np.log(before[0]), day[1], past, past**2, future, future**2, future**3]
    return np.concatenate([*blocks, np.array(calendar, dtype=float), [np.cos(angle), np.sin(angle)]])


def _feature_names() -> tuple[str, ...]:
    blocks = ("past log price", "load", "past temp", "past temp²", "temp", "temp²", "temp³")
    hourly = [f"{block} {hour:02d}h" for block in blocks for hour in range(HOURS)]
    return (*hourly, "weekend", "holiday", "daylight saving", "cos day of year", "sin day of year")


# --------------------------------------------------------------------------------------------- calendar


def _holidays(year: int) -> set[datetime.date]:
    """The US federal holidays observed in `year` (5 U.S.C. 6103), as they stood until 2020."""

    def nth(month: int, weekday: int, n: int) -> datetime.date:
        return list(_weekdays(year, month, weekday))[n - 1 if n > 0 else n]

    fixed = [datetime.date(year, month, day) for month, day in ((1, 1), (7, 4), (11, 11), (12, 25))]
    fixed.append(datetime.date(year + 1, 1, 1))  # observed on 31 December when it is a Saturday
    floating = [nth(1, 0, 3), nth(2, 0, 3), nth(5, 0, -1), nth(9, 0, 1), nth(10, 0, 2), nth(11, 3, 4)]
    observed = {d + datetime.timedelta(days={5: -1, 6: 1}.get(d.weekday(), 0)) for d in fixed}
    return {d for d in observed if d.year == year} | set(floating)


def _daylight_saving(date: datetime.date) -> bool:
    """Whether the day starts in US daylight saving time, under the rule in force since 2007."""
    start = list(_weekdays(date.year, 3, 6))[1]
    end = next(_weekdays(date.year, 11, 6))
    return start < date <= end


def _weekdays(year: int, month: int, weekday: int) -> Iterator[datetime.date]:
    day = datetime.date(year, month, 1)
    while day.month == month:
        if day.weekday() == weekday:
            yield day
        day += _ONE_DAY
