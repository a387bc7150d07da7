"""`decigrad bench`: runs once, resumes, refuses what does not fit, and its table holds what was measured."""

from __future__ import annotations

import importlib
import json
import sys

import cloudpickle
import numpy as np
import pytest
from typer.testing import CliRunner

import decigrad as dg
from decigrad.cli import app
from decigrad.problems import selection_layer, selection_samples
from decigrad.problems.benchmark import Benchmark, Cell, Draw
from decigrad.problems.benchmarks import BENCHMARKS

bench = importlib.import_module("decigrad.cli.bench")  # `decigrad.cli.bench` is also the command's function


def draw(seed: int) -> Draw:
    x, c, expected = selection_samples(60, seed, items=6, features=8)  # no two items alike
    train, test = (dg.Dataset(x[part], targets={"cost": c[part]}) for part in (slice(30), slice(30, None)))
    return Draw(train, test, {"cost": expected[30:]})


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    options = {"epochs": 2, "selection": dg.CrossValidation(folds=2, weights=(0.0,))}
    cells = [
        Cell(f"{k} of 6", lambda k=k: selection_layer(6, k), draw, {"spo+": 12.5}, options) for k in (1, 2)
    ]
    known = Benchmark("tiny", "A tiny one", "For tests.", lambda data: cells, methods=("spo+", "mse"))
    monkeypatch.setitem(BENCHMARKS, "tiny", known)


def run(out, **options):
    return bench.run_bench("tiny", out=out, say=lambda line: None, **{"seeds": 2, **options})


def test_figures_are_those_of_evaluate_and_of_the_expected_costs(tmp_path):
    results = run(tmp_path, cells="2 of 6", methods=["two-stage"])
    cell = results.cells["2 of 6"]
    for seed in (0, 1):
        data = draw(seed)
        columns = np.column_stack([data.train.features, np.ones(30)])
        weights = np.linalg.lstsq(columns, data.train.targets["cost"], rcond=None)[0]
        cost = data.test.targets["cost"]
        best = np.sort(cost, axis=1)[:, :2].sum()
        for predicted, found in (
            (np.column_stack([data.test.features, np.ones(30)]) @ weights,
             cell.runs["two-stage"][str(seed)]["regret"]),
            (data.expected["cost"], cell.floor[str(seed)]),
        ):  # fmt: skip
            chosen = np.argsort(predicted, axis=1)[:, :2]
            reached = np.take_along_axis(cost, chosen, axis=1).sum()
            assert found == pytest.approx(100.0 * (reached / best - 1.0), rel=1e-9)


def test_a_second_run_does_only_what_is_missing(tmp_path, monkeypatch):
    made = []
    original = bench._run

    def counted(*arguments):
        made.append(arguments[-2:])
        return original(*arguments)

    monkeypatch.setattr(bench, "_run", counted)
    run(tmp_path, cells="1*", seeds=1)
    assert sorted(made) == [("mse", 0), ("spo+", 0), ("two-stage", 0)]
    before = json.loads((tmp_path / "tiny.json").read_text())
    made.clear()
    run(tmp_path, cells="1*", seeds=1)
    assert made == []
    assert json.loads((tmp_path / "tiny.json").read_text()) == before
    run(tmp_path, cells="1*", seeds=2, methods=["spo+"])
    assert sorted(made) == [("spo+", 1), ("two-stage", 1)]


@pytest.mark.slow
def test_workers_change_nothing_but_time(tmp_path):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    told = {workers: [] for workers in (1, 2)}
    for workers, lines in told.items():
        options = {"seeds": 2, "methods": ["spo+", "sfge"], "workers": workers, "say": lines.append}
        bench.run_bench("tiny", out=tmp_path / str(workers), **options)
    alone, together = (json.loads((tmp_path / str(w) / "tiny.json").read_text()) for w in told)
    for content in (alone, together):
        for cell in content["cells"]:
            for run in (run for seeds in cell["runs"].values() for run in seeds.values()):
                del run["seconds"], run["seconds_epoch"]
    assert json.dumps(alone) == json.dumps(together)
    said = [[line.split(" (")[0] for line in lines[:-1]] for lines in told.values()]
    assert said[0] == said[1] and len(said[0]) == 2 * 2 * 3


def test_an_interrupted_run_keeps_what_it_has(tmp_path, monkeypatch):
    original = bench._run

    def interrupted(*arguments):
        if arguments[-2:] == ("spo+", 1):
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(bench, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, cells="1*")
    kept = json.loads((tmp_path / "tiny.json").read_text())["cells"][0]["runs"]
    assert {m: list(seeds) for m, seeds in kept.items()} == {
        "two-stage": ["0", "1"], "spo+": ["0"], "mse": ["0"]
    }  # fmt: skip


def test_table_and_page_show_every_method_beside_published_figures(tmp_path):
    results = run(tmp_path, cells="2*", methods=["spo+", "auto"])
    text = (tmp_path / "tiny.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| spo+"))
    values = results.cells["2 of 6"].values("spo+")
    assert f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" in row and row.endswith("12.50 |")
    assert "`auto` chose" in text and "true expected parameters" in text
    page = (tmp_path / "tiny.html").read_text()
    assert "<svg" in page and "spo+" in page


def test_a_method_that_does_not_apply_is_listed_with_its_reason(tmp_path, monkeypatch):
    def refusing(*arguments):
        if arguments[-2] == "mse":
            raise dg.ModelError("not here")
        return {"regret": 1.0, "mse": 1.0, "seconds": 0.1, "seconds_epoch": None, "calls": 3, "chosen": {}}

    monkeypatch.setattr(bench, "_run", refusing)
    results = run(tmp_path, cells="1*")
    assert results.cells["1 of 6"].refused == {"mse": "not here"}
    assert "Not applicable: mse" in (tmp_path / "tiny.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["spo"]}, "no method 'spo'; there are two-stage"),
        ({"cells": "9*"}, "no cell of 'tiny' matches '9.*'; there are '1 of 6', '2 of 6'"),
        ({"seeds": 0}, "at least one seed"),
    ],
)
def test_unknown_names_are_refused(tmp_path, options, message):
    with pytest.raises(dg.ModelError, match=message):
        run(tmp_path, **options)


def test_results_of_other_settings_are_not_mixed(tmp_path):
    run(tmp_path, cells="1*", seeds=1, methods=["two-stage"])
    with pytest.raises(dg.ModelError, match=r"made with .*'epochs': '2'"):
        run(tmp_path, cells="1*", epochs=3)
    (tmp_path / "tiny.json").write_text('{"cells": [{"label": "1 of 6"}]}')
    with pytest.raises(dg.ModelError, match="is not a result of `decigrad bench`"):
        run(tmp_path)


def test_the_command_line(tmp_path):
    found = CliRunner().invoke(app, ["bench", "list"])
    assert found.exit_code == 0 and "shortest-path" in found.output and "tsp" in found.output
    wrong = CliRunner().invoke(app, ["bench", "shortest-paths"])
    assert wrong.exit_code == 2 and "shortest-path, knapsack" in wrong.output
    without = CliRunner().invoke(app, ["bench", "energy-knapsack", "--out", str(tmp_path)])
    assert without.exit_code == 2 and "name their directory" in without.output


def test_a_method_that_fails_to_train_does_not_end_the_benchmark(tmp_path, monkeypatch):
    tried = []

    def failing(*arguments):
        tried.append(arguments[-2:])
        if arguments[-2:] == ("mse", 1):
            raise dg.SolveError("the loss became NaN")
        return {"regret": 1.0, "mse": 1.0, "seconds": 0.1, "seconds_epoch": None, "calls": 3, "chosen": {}}

    monkeypatch.setattr(bench, "_run", failing)
    run(tmp_path, cells="1*")
    assert "mse failed with seed 1: the loss became NaN" in (tmp_path / "tiny.md").read_text()
    assert len(tried) == 6
    run(tmp_path, cells="1*")
    assert len(tried) == 6  # nothing is tried again


def test_costly_methods_train_shortly():
    cell = BENCHMARKS["tiny"].cells(None)[0]
    assert cell.options_for("spo+")["epochs"] == 2 and cell.options_for("dpo")["epochs"] == 2
    assert isinstance(cell.options_for("dpo")["selection"], dg.HoldOut)
    assert not isinstance(cell.options_for("spo+")["selection"], dg.HoldOut)


def test_auto_is_judged_on_the_seeds_that_others_have_too():
    seeds = {"two-stage": [9.0, 9.0], "spo+": [7.0, 7.1], "auto": [7.0, 7.1, 20.0], "map": [6.0]}
    runs = {m: {str(i): {"regret": r, "chosen": {}} for i, r in enumerate(v)} for m, v in seeds.items()}
    results = importlib.import_module("decigrad.cli._bench_results")
    cell = results.CellResults("x", {}, {}, runs=runs)
    assert cell.auto(True) is None  # no fixed method has all of auto's seeds
    del runs["auto"]["2"]
    assert "best fixed method spo+ at 7.05" in cell.auto(True) and "within" in cell.auto(True)


def test_the_summary_is_relative_to_two_stage(tmp_path):
    run(tmp_path, seeds=1, methods=["spo+"])
    found = CliRunner().invoke(app, ["bench", "summary", "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    cells = json.loads((tmp_path / "tiny.json").read_text())["cells"]
    text = (tmp_path / "summary.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| spo+"))
    for cell in cells:
        share = cell["runs"]["spo+"]["0"]["regret"] / cell["runs"]["two-stage"]["0"]["regret"]
        assert f"{share:.2f}" in row
    empty = CliRunner().invoke(app, ["bench", "summary", "--out", str(tmp_path / "nothing")])
    assert empty.exit_code == 2 and "no results" in empty.output
