"""Results of `train` and `compare` as one JSON file, from which `report` makes its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from decigrad.errors import ModelError
from decigrad.evaluation.comparison import ComparisonData, Run
from decigrad.evaluation.metrics import Evaluation, plain
from decigrad.files import write_atomically

FORMAT = 1
NAMES = ("training.json", "comparison.json")
ARRAYS = ("regret", "optimal_value")
GROUPS = ("predicted", "true", "decisions", "optimal_decisions")


def write_results(path: Path, data: ComparisonData, title: str) -> None:
    """Write every run with the arrays behind it."""
    content = {
        "format": FORMAT,
        "title": title,
        "baseline": data.baseline,
        "settings": {key: str(value) for key, value in data.settings.items()},
        "notes": data.notes,
        "unit": data.unit,
        "block": data.block,
        "runs": {method: [_described(run) for run in runs] for method, runs in data.runs.items()},
    }
    write_atomically(path, json.dumps(plain(content), allow_nan=False) + "\n", what="the results")


def read_results(path: Path) -> tuple[ComparisonData, str]:
    """The runs in a file, and the title.

    Raises:
        ModelError: it was not written by `write_results`, or by a newer version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} holds no results: {error}") from None
    if not isinstance(content, dict) or "format" not in content:
        raise ModelError(f"{path} holds no results of decigrad train or compare")
    if content["format"] != FORMAT:
        raise ModelError(f"{path} has format {content['format']}; this version reads {FORMAT}")
    try:
        runs = {method: [_run(run) for run in listed] for method, listed in content["runs"].items()}
        told = {key: content[key] for key in ("baseline", "settings", "notes", "unit", "block")}
        return ComparisonData(runs, **told), content["title"]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} is damaged: its results cannot be read ({error!r})") from None


def latest(folder: Path) -> Path:
    """The newest results in a folder.

    Raises:
        ModelError: there are none.
    """
    found = [folder / name for name in NAMES if (folder / name).exists()]
    if not found:
        raise ModelError(
            f"there are no results in {folder}: run `decigrad train` or `decigrad compare` first"
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def summary(data: ComparisonData) -> dict[str, Any]:
    """By method: mean regret over the seeds, failures, and the gain over the baseline with its interval."""
    found: dict[str, Any] = {}
    for method in data.methods:
        regret = data.estimate(method, "mean_regret")
        found[method] = {
            "mean_regret": regret.mean,
            "standard_error": regret.error,
            "normalized_regret": data.estimate(method, "normalized_regret").mean,
            "failed": data.failures(method),
        }
    for method in data.challengers:
        gain, verdict = data.gain(method), data.verdict(method)
        found[method]["gain_percent"] = {"mean": gain.estimate, "low": gain.low, "high": gain.high}
        found[method]["verdict"] = {"kind": verdict.kind, "text": verdict.text}
    return found


def _described(run: Run) -> dict[str, Any]:
    e = run.evaluation
    return {
        "seed": run.seed,
        "seconds_fit": run.seconds_fit,
        "history": run.history,
        "name": e.name,
        "sense": e.sense,
        "seconds": e.seconds,
        "failed": e.failed,
        **{name: getattr(e, name) for name in (*ARRAYS, *GROUPS)},
    }


def _run(content: dict[str, Any]) -> Run:
    arrays: dict[str, Any] = {name: _array(content[name]) for name in ARRAYS}
    arrays |= {name: {k: _array(v) for k, v in content[name].items()} for name in GROUPS}
    evaluation = Evaluation(
        name=content["name"],
        sense=content["sense"],
        seconds=_number(content["seconds"]),
        failed=np.array(content["failed"], int),
        **arrays,
    )
    return Run(content["seed"], evaluation, content["history"], _number(content["seconds_fit"]))


def _array(values: Any) -> np.ndarray:
    """Numbers, with NaN where JSON has null."""
    return np.array(values, dtype=np.float64)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
