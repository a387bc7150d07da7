"""The results of `decigrad bench`: one JSON file, from which the table and the page are made."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from decigrad.errors import ModelError
from decigrad.evaluation.dots import method_dots
from decigrad.evaluation.report import Report
from decigrad.evaluation.statistics import format_number, paired_difference
from decigrad.files import write_atomically
from decigrad.problems.benchmark import Benchmark, Cell, costly


@dataclass
class CellResults:
    """One cell: `runs` by method and seed, `floor` by seed, and why methods were refused or failed."""

    label: str
    settings: dict[str, str]
    published: dict[str, float]
    floor: dict[str, float] = field(default_factory=dict)
    runs: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    fixed: bool = False

    def todo(self, methods: list[str], seed: int) -> list[str]:
        """The methods that have neither run nor been refused with this seed."""
        done = {m for m in methods if str(seed) in {**self.runs.get(m, {}), **self.failed.get(m, {})}}
        return [m for m in methods if m not in done and m not in self.refused]

    def values(self, method: str, key: str = "regret") -> np.ndarray:
        """[S] one number by seed; NaN where there is none."""
        rows = self.runs.get(method, {})
        return np.array([np.nan if row[key] is None else row[key] for row in rows.values()], dtype=float)

    def ranked(self) -> list[str]:
        """Methods by mean regret, the best first."""
        return sorted(self.runs, key=lambda m: float(self.values(m).mean()))

    def shared(self, method: str, other: str) -> tuple[np.ndarray, np.ndarray]:
        """[S] regrets of two methods on the seeds that both have."""
        both = [s for s in self.runs[method] if s in self.runs[other]]
        return (
            np.array([self.runs[method][s]["regret"] for s in both]),
            np.array([self.runs[other][s]["regret"] for s in both]),
        )

    def auto(self, points: bool) -> str | None:
        """How "auto" stands beside the best fixed method and beside two-stage.

        The tolerance is the largest of 5 %, one standard error of the paired difference and, where regret is
        in percent, .3 points.
        """
        fixed = [m for m in self.ranked() if m != "auto"]
        fixed = [m for m in fixed if set(self.runs[m]) >= set(self.runs.get("auto", {}))]
        if "auto" not in self.runs or not fixed:
            return None
        parts = []
        for name in dict.fromkeys([fixed[0], "two-stage"]):
            if name not in fixed:
                continue
            auto, other = self.shared("auto", name)
            mean, level = float(auto.mean()), float(other.mean())
            spread = (auto - other).std(ddof=1) / math.sqrt(len(auto)) if len(auto) > 1 else 0.0
            allowed = max(0.3 if points else 0.0, 0.05 * level, spread)
            word = "best fixed method" if name == fixed[0] else "baseline"
            verdict = "within" if mean <= level + allowed else "above"
            parts.append(
                f"{word} {name} at {format_number(level)}: {verdict} the tolerance of "
                f"{format_number(allowed, 3)}"
            )
        picks = [row["chosen"].get("method", "?") for row in self.runs["auto"].values()]
        counts = ", ".join(f"{name} {picks.count(name)}×" for name in dict.fromkeys(picks))
        return f"`auto` chose {counts} and reaches {format_number(mean)}; " + "; ".join(parts) + "."


HEADERS = ("method", "regret", "less than two-stage", "a fit, s", "an epoch, ms", "solver calls", "published")


@dataclass
class Results:
    """All cells of a benchmark."""

    benchmark: Benchmark
    cells: dict[str, CellResults]

    @staticmethod
    def read(out: Path, benchmark: Benchmark) -> Results:
        """What `out` holds already; empty where it holds nothing."""
        path = out / f"{_stem(benchmark)}.json"
        if not path.exists():
            return Results(benchmark, {})
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            cells = {c["label"]: CellResults(**c) for c in content["cells"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path} is not a result of `decigrad bench`: {error}; move it away") from None
        return Results(benchmark, cells)

    def cell(self, cell: Cell, settings: dict[str, str]) -> CellResults:
        """The results of a cell, new or found.

        Raises:
            ModelError: those found were made with other settings.
        """
        found = self.cells.get(cell.label)
        if found is None:
            found = CellResults(cell.label, settings, dict(cell.published), fixed=cell.fixed)
            self.cells[cell.label] = found
        elif found.settings != settings:
            raise ModelError(
                f"the results found for {cell.label!r} were made with {found.settings}, not {settings}: "
                f"name another directory, or remove the file"
            )
        return found

    @property
    def unit(self) -> str:
        """Of regret."""
        return "%" if self.benchmark.normalized else ""

    def rows(self, cell: CellResults) -> list[list[str]]:
        """The table of a cell, as text."""
        found = []
        for method in cell.ranked():
            regret, epoch = cell.values(method), cell.values(method, "seconds_epoch")
            epoch = epoch[np.isfinite(epoch)]
            found.append(
                [
                    method + " °" * costly(method),
                    _spread(regret),
                    "" if method == "two-stage" else _difference(cell, method),
                    f"{cell.values(method, 'seconds').mean():.1f}",
                    format_number(1000.0 * float(epoch.mean()), 3) if epoch.size else "",
                    f"{round(cell.values(method, 'calls').mean()):,}",
                    format_number(cell.published[method]) if method in cell.published else "",
                ]
            )
        return found

    def remarks(self, cell: CellResults) -> list[str]:
        """What is said below a table."""
        found = []
        if cell.floor:
            floor = np.array(list(cell.floor.values()))
            found.append(f"Decisions at the true expected parameters: {_spread(floor)}.")
        if (auto := cell.auto(self.benchmark.normalized)) is not None:
            found.append(auto)
        if cell.fixed:
            found.append(
                "All seeds have the same data: spreads and intervals show the randomness of training."
            )
        most = max((len(seeds) for seeds in cell.runs.values()), default=0)
        if fewer := [f"{m} ({len(seeds)})" for m, seeds in cell.runs.items() if len(seeds) < most]:
            found.append(f"With fewer seeds than {most}: {', '.join(fewer)}.")
        for method, seeds in cell.failed.items():
            found.append(f"{method} failed with seed {', '.join(seeds)}: {next(iter(seeds.values()))}")
        if cell.refused:
            found.append("Not applicable: " + ", ".join(cell.refused) + ".")
        return found

    def markdown(self) -> str:
        """The table as a page."""
        b = self.benchmark
        unit = "in % of the optimal value" if b.normalized else "in the unit of the objective"
        parts = [
            f"# {b.title}",
            b.about,
            f"    {self.command}",
            f"Regret on test data {unit}, mean ± standard deviation over seeds; *less than two-stage* is the "
            "paired difference with its 95 % interval. Each method starts from two-stage; proximal weight "
            "and epochs are selected by cross-validated regret, then all training data are used, where the "
            "problem does not say otherwise. Times are those of a whole fit with its selection, compilation "
            "included, and of one epoch of the final training; solver calls are those of a fit. Methods "
            "marked ° solve a relaxation, or four problems or more, for each sample and step; they get 10 "
            "epochs at most, stopped by a fifth of the data held out. The committed times were taken on a "
            "busy machine: read their order of magnitude.",
        ]
        for cell in self.cells.values():
            parts.append(f"## {cell.label}")
            parts.append(pipes(HEADERS, self.rows(cell)))
            parts.append("\n".join(f"- {line}" for line in self.remarks(cell)))
        return "\n\n".join(part for part in parts if part) + "\n"

    @property
    def command(self) -> str:
        """What makes these results again."""
        seeds = max((len(r) for c in self.cells.values() for r in c.runs.values()), default=0)
        data = " --data DIRECTORY" if self.benchmark.needs_data else ""
        return f"decigrad bench {self.benchmark.name} --seeds {seeds}{data}"

    def write(self, out: Path) -> list[Path]:
        """`<name>.json`, `<name>.md` and `<name>.html` in `out`."""
        out.mkdir(parents=True, exist_ok=True)
        content = {"benchmark": self.benchmark.name, "cells": [asdict(c) for c in self.cells.values()]}
        stem = out / _stem(self.benchmark)
        json_path, md_path = stem.with_suffix(".json"), stem.with_suffix(".md")
        write_atomically(json_path, json.dumps(content, indent=1, allow_nan=False) + "\n", what="the results")
        write_atomically(md_path, self.markdown(), what="the table")
        return [json_path, md_path]

    def write_page(self, out: Path) -> Path:
        """The HTML report, with a picture of every cell."""
        b, count = self.benchmark, len(self.cells)
        page = Report(b.title, subtitle=f"{count} setting{'s' if count > 1 else ''}")
        page.section("What was run").text(f"{b.about}\n\nRecompute with `{self.command}`.")
        for cell in self.cells.values():
            if not cell.runs:
                continue
            page.section(cell.label)
            page.table(list(HEADERS), self.rows(cell), caption="Mean ± standard deviation over seeds.")
            floor = float(np.mean(list(cell.floor.values()))) if cell.floor else None
            values = {m: cell.values(m) for m in cell.ranked()}
            figure = method_dots(values, cell.published, floor, unit=self.unit)
            page.figure(figure, f"{cell.label}: regret by seed, the mean as a line; crosses are published.")
            page.text("\n\n".join(self.remarks(cell)))
        return page.write(out / f"{_stem(b)}.html")


def _stem(benchmark: Benchmark) -> str:
    return benchmark.name.replace("-", "_")


def _spread(values: np.ndarray) -> str:
    digits = 2 if values.mean() < 1000 else 0
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1) if len(values) > 1 else 0.0:.{digits}f}"


def _difference(cell: CellResults, method: str) -> str:
    base, other = cell.shared("two-stage", method)
    if len(base) < 2:
        return ""
    if np.array_equal(base, other):
        return "0"
    interval = paired_difference(base, other)
    digits = 2 if abs(base.mean()) < 1000 else 0
    text = f"{interval.estimate:+.{digits}f} [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"
    return text.replace("-", "−")


def pipes(headers: Any, rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [headers, ["---"] * len(headers), *rows])
