"""What a study found, and how it is shown: terminal, HTML page, JSON and Markdown from the same numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from decigrad.evaluation.comparison import ComparisonData
from decigrad.evaluation.comparison_report import build_comparison_report
from decigrad.evaluation.metrics import Evaluation, plain
from decigrad.evaluation.statistics import Interval, format_number
from decigrad.files import write_atomically

if TYPE_CHECKING:
    from rich.console import Console

SUMMARIES = ("mean_regret", "normalized_regret", "mse", "spearman", "correct_cheapest", "seconds_fit")


@dataclass(frozen=True)
class Table:
    """A table of a study: every cell a string or a number."""

    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass
class Study:
    """Comparisons by label (the first is the main one), with the tables and remarks that belong to them.

    `command` is the command line that recomputes the study.
    """

    title: str
    command: str
    comparisons: dict[str, ComparisonData]
    tables: list[Table] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Remarks of the main comparison."""
        return next(iter(self.comparisons.values())).notes

    def publish(self, command: str, report: Path | None, quick: bool) -> Study:
        """Print the study and write it where `report` says; `command` recomputes it without its options."""
        page = f" --report reports/study_{command.split()[2]}.html"
        self.command = command + page + " --quick" * quick
        self.show()
        if report is not None:
            self.write(report)
        return self

    def show(self, console: Console | None = None) -> None:
        """Print comparisons, verdicts, tables and notes."""
        from rich.console import Console
        from rich.table import Table as RichTable

        console = console or Console()
        if not console.is_terminal:
            console = Console(width=140)
        console.rule(self.title)
        for label, data in self.comparisons.items():
            console.print(f"\n[bold]{label}[/bold]" + (f" (unit: {data.unit})" if data.unit else ""))
            console.print(data.table())
            for method in data.challengers:
                console.print(data.verdict(method).text, markup=False)
        for table in self.tables:
            shown = RichTable(*table.headers, title=table.caption)
            for row in table.rows:
                shown.add_row(*(_text(cell) for cell in row))
            console.print(shown)
        for note in self.notes:
            console.print(f"- {note}", markup=False)

    def write(self, report: Path) -> list[Path]:
        """Write the HTML page to `report`, and the same numbers as JSON and Markdown beside it."""
        data = next(iter(self.comparisons.values()))
        page = build_comparison_report(data, self.title)
        if len(self.comparisons) > 1 or self.tables:
            page.section("The study")
        if len(self.comparisons) > 1:
            page.table(["problem", "method", "verdict"], self._verdict_rows(), caption="All problems.")
        for table in self.tables:
            page.table(table.headers, table.rows, caption=table.caption)
        page.text(f"Recompute with `{self.command}`.")
        beside = {report.with_suffix(".json"): self.json(), report.with_suffix(".md"): self.markdown()}
        for path, text in beside.items():
            write_atomically(path, text)
        return [page.write(report), *beside]

    def json(self) -> str:
        """Settings, summaries by method (mean and standard error over seeds), gains and tables."""
        out: dict[str, Any] = {"study": self.title, "command": self.command, "notes": self.notes}
        out["comparisons"] = {label: _comparison(data) for label, data in self.comparisons.items()}
        out["tables"] = [
            {"caption": t.caption, "rows": [dict(zip(t.headers, row, strict=True)) for row in t.rows]}
            for t in self.tables
        ]
        return json.dumps(plain(out), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def markdown(self) -> str:
        """The same as pipe tables."""
        parts = [f"# {self.title}", f"Recompute with `{self.command}`."]
        for label, data in self.comparisons.items():
            parts.append(f"## {label}")
            parts.append(_pipes(["setting", "value"], [[k, str(v)] for k, v in data.settings.items()]))
            headers = ["method", f"regret ({data.unit})", "normalized, %", "prediction MSE", "fit, s"]
            keys = (("mean_regret", 1.0), ("normalized_regret", 100.0), ("mse", 1.0), ("seconds_fit", 1.0))
            rows = [[m, *(f"{f * data.estimate(m, key).mean:.4g}" for key, f in keys)] for m in data.methods]
            parts.append(_pipes(headers, rows))
            parts.append("\n".join(f"- {data.verdict(m).text}" for m in data.challengers))
        for table in self.tables:
            parts.append(f"## {table.caption}")
            parts.append(_pipes(table.headers, table.rows))
        parts.append("## Remarks\n\n" + "\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(parts) + "\n"

    def _verdict_rows(self) -> list[list[str]]:
        return [
            [label, method, data.verdict(method).text]
            for label, data in self.comparisons.items()
            for method in data.challengers
        ]


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """Evaluations of one method on consecutive test blocks, as one."""
    first = parts[0]

    def group(name: str) -> dict[str, np.ndarray]:
        return {
            key: np.concatenate([getattr(part, name)[key] for part in parts]) for key in getattr(first, name)
        }

    return Evaluation(
        name=first.name,
        regret=np.concatenate([p.regret for p in parts]),
        optimal_value=np.concatenate([p.optimal_value for p in parts]),
        predicted=group("predicted"),
        true=group("true"),
        decisions=group("decisions"),
        optimal_decisions=group("optimal_decisions"),
        seconds=float(sum(p.seconds for p in parts)),
        sense=first.sense,
    )


def interval_text(interval: Interval) -> str:
    """ "+0.012 [−0.003, +0.027]"."""
    if not interval.known:
        return f"{interval.estimate:+.4f}"
    return f"{interval.estimate:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]".replace("-", "−")


def _comparison(data: ComparisonData) -> dict[str, Any]:
    methods = {
        method: {
            key: {"mean": data.estimate(method, key).mean, "standard_error": data.estimate(method, key).error}
            for key in SUMMARIES
        }
        for method in data.methods
    }
    gains: dict[str, dict[str, Any]] = {}
    for method in data.challengers:
        for name, found in (("gain_percent", data.gain(method)), ("difference", data.difference(method))):
            gains.setdefault(method, {})[name] = {
                "estimate": found.estimate,
                "low": found.low,
                "high": found.high,
                "confidence": found.confidence,
                "method": found.method,
            }
        gains[method]["verdict"] = {"text": data.verdict(method).text, "kind": data.verdict(method).kind}
    return {
        "unit": data.unit,
        "baseline": data.baseline,
        "seeds": data.seeds,
        "settings": data.settings,
        "methods": methods,
        "against_baseline": gains,
    }


def _pipes(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [headers, ["---"] * len(headers), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _text(cell: Any) -> str:
    return format_number(float(cell)) if isinstance(cell, float | np.floating) else str(cell)
