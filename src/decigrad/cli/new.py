"""`decigrad new`: a small project that trains as it is, to be replaced piece by piece by your own."""

from __future__ import annotations

import csv
import io
from datetime import date, timedelta
from importlib.resources import files
from pathlib import Path

import numpy as np

from decigrad.errors import ModelError

WRITTEN = ("config.toml", "model.py", "README.md")
FEATURES = ("temperature", "wind", "sun", "weekend")
SOURCES = ("wind", "solar", "gas", "grid")


def write_project(folder: Path) -> list[Path]:
    """Write the starter project into a folder that is new or empty.

    Raises:
        ModelError: the folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder} is not empty: name a new folder, nothing is overwritten")
    folder.mkdir(parents=True, exist_ok=True)
    source = files("decigrad.cli") / "starter"
    contents = {name: (source / name).read_text(encoding="utf-8") for name in WRITTEN}
    contents["data.csv"] = starter_table()
    for name, text in contents.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in contents]


def starter_table(days: int = 365, seed: int = 0) -> str:
    """One row a day, as CSV: the forecasts of the evening before, the prices that came, the load.

    Prices bend with the weather, and a linear predictor cannot follow everywhere: where it should be right is
    what the decision knows.
    """
    rng = np.random.default_rng(seed)
    start = [date(2024, 1, 1) + timedelta(days=i) for i in range(days)]
    weekend = np.array([day.weekday() >= 5 for day in start], float)
    season = np.cos(2 * np.pi * (np.arange(days) - 15) / 365)
    temperature = 11 - 9 * season + 3 * rng.standard_normal(days)
    wind = rng.weibull(2.0, days) * 8
    sun = np.clip(0.5 - 0.35 * season + 0.2 * rng.standard_normal(days), 0.02, 1.0)
    load = 120 + 25 * season - 15 * weekend + 5 * rng.standard_normal(days)
    scarce = np.maximum(0.0, load - 100 - 4 * wind) * 0.6  # a grid short of wind is expensive
    price = np.column_stack(
        [
            55 * np.exp(-wind / 9) + 18,
            60 * np.exp(-2.2 * sun) + 16,
            44 + 0.5 * np.maximum(0.0, 8 - temperature),
            24 + scarce + 6 * (1 - weekend),
        ]
    )
    price *= np.exp(0.1 * rng.standard_normal((days, 4)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["day", *FEATURES, *(f"price_{name}" for name in SOURCES), "load"])
    for i, day in enumerate(start):
        known = [f"{temperature[i]:.1f}", f"{wind[i]:.1f}", f"{sun[i]:.2f}", int(weekend[i])]
        writer.writerow([day.isoformat(), *known, *(f"{p:.2f}" for p in price[i]), f"{load[i]:.1f}"])
    return text.getvalue()
