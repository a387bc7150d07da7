"""What `diagnose`, `train`, `compare`, `evaluate` and `report` do."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import decigrad as dg
from decigrad.cli.config import Config, read_config
from decigrad.cli.project import Project, open_project, pool_of
from decigrad.cli.results import latest, read_results, summary, write_results
from decigrad.cli.shell import Output
from decigrad.errors import ModelError
from decigrad.evaluation.comparison import ComparisonData, Run
from decigrad.evaluation.comparison_report import comparison_report
from decigrad.evaluation.statistics import format_number
from decigrad.sources import shown

POLICY, CHECKPOINT, CHECKPOINTS, TRAINING, COMPARISON, PAGE = (
    "policy.decigrad",
    "training.checkpoint",
    "comparison.checkpoints",
    "training.json",
    "comparison.json",
    "report.html",
)


def run_diagnose(path: Path, report: Path | None, output: Output) -> None:
    """What there is to gain on the training data, by the predictor of the configuration."""
    config, project = _opened(path, output)
    t = config.training
    with output.logged():
        found = dg.diagnose(
            project.layer, project.train, predictor=project.predictor, folds=t.folds, ordered=project.ordered,
            seed=t.seed, unit=config.output.unit, progress=output.progress,
        )  # fmt: skip
    output.say(str(found))
    if report is not None:
        found.to_html(report, title=f"{config.output.title}: will it help?")
        output.say(f"the page is {report}")
    output.result({**found.as_dict(), "report": None if report is None else str(report)})


def run_train(path: Path, restart: bool, output: Output) -> bool:
    """Train with one seed, judge beside two-stage, write policy and results; False if interrupted."""
    config, project = _opened(path, output)
    t, folder = config.training, _made(config)
    checkpoint = folder / CHECKPOINT
    if restart:
        checkpoint.unlink(missing_ok=True)
    resumed = t.checkpoint and checkpoint.exists()
    if resumed:
        output.say(f"going on from {checkpoint}; --restart begins anew")
    with output.logged():
        result = dg.fit(
            project.predictor, project.layer, project.train, t.method, seed=t.seed, progress=output.progress,
            checkpoint=checkpoint if t.checkpoint else None, callbacks=_logs(config), **project.options,
        )  # fmt: skip
    runs = {"two-stage": [_judged(result.two_stage, project, "two-stage", t.seed)]}
    if t.method != "two-stage":
        history = {"loss": result.history.get("loss", [])}
        runs[t.method] = [_judged(result.predictor, project, t.method, t.seed, history, result.seconds)]
    data = ComparisonData(
        runs, settings=_settings(config, project), notes=project.notes, unit=config.output.unit
    )
    write_results(folder / TRAINING, data, config.output.title)
    kept = folder / POLICY
    settings = {"method": t.method, "seed": t.seed, "chosen": _simple(result.chosen)}
    dg.Policy(
        result.predictor, project.layer, columns=project.columns,
        feature_shape=project.train.features.shape[1:], settings=settings,
    ).save(kept)  # fmt: skip
    if not result.interrupted:
        checkpoint.unlink(missing_ok=True)  # the next run begins anew: its results are written
    _tell(output, data)
    output.say(f"the policy is in {kept}")
    if result.interrupted:
        output.say("training was interrupted: this is the best until then; train again to go on")
    output.result(
        {
            "policy": str(kept), "results": str(folder / TRAINING), "methods": summary(data),
            "chosen": _simple(result.chosen), "interrupted": result.interrupted, "resumed": resumed,
            "seconds": result.seconds, "solver_calls": result.solver_calls,
        }
    )  # fmt: skip
    return not result.interrupted


def run_compare(path: Path, restart: bool, output: Output) -> None:
    """Train several methods with several seeds, or on every fold of a walk-forward split."""
    config, project = _opened(path, output)
    folder = _made(config)
    checkpoints = folder / CHECKPOINTS
    if restart:
        shutil.rmtree(checkpoints, ignore_errors=True)
    resumed = config.training.checkpoint and checkpoints.exists()
    if resumed:
        output.say(f"going on from {checkpoints}; --restart begins anew")
    several = len(project.folds) > 1
    where: dict[str, Any] = {"train": project.train, "test": project.test}
    if several:
        where = {"train": project.folds.__getitem__}
    with output.logged():
        found = dg.compare(
            project.layer, methods=config.compare.methods, predictor=project.predictor,
            seeds=len(project.folds) if several else config.compare.seeds, notes=project.notes,
            title=config.output.title, unit=config.output.unit, progress=output.progress,
            checkpoint=checkpoints if config.training.checkpoint else None,
            **where, **project.options, **pool_of(config.compare),
        )  # fmt: skip
    write_results(folder / COMPARISON, found.data, config.output.title)
    shutil.rmtree(checkpoints, ignore_errors=True)  # the next run begins anew: its results are written
    _tell(output, found.data)
    output.say(f"the results are in {folder / COMPARISON}")
    output.result({"results": str(folder / COMPARISON), "methods": summary(found.data), "resumed": resumed})


def run_evaluate(path: Path, table: Path, max_regret: float | None, output: Output) -> bool:
    """Judge a policy on a table; whether every row has a decision and regret is within bounds."""
    policy = dg.Policy.load(path)
    if policy.columns is None:
        raise ModelError(f"{path} does not know which columns are targets: save it with columns=")
    data = dg.read_table(table, replace(policy.columns, time=None, group=None, censored=None), policy.layer)
    evaluation = dg.evaluate(policy.predictor, policy.layer, data, name=path.stem)
    output.say(evaluation.table())
    output.say(str(evaluation))
    within = max_regret is None or evaluation.mean_regret <= max_regret
    if not within:
        output.fail(f"the mean regret, {evaluation.mean_regret:g}, is above {max_regret:g}")
    if len(evaluation.failed):
        output.fail(f"rows without a decision: {shown(evaluation.failed)}")
    passed = within and not len(evaluation.failed)
    output.result({"passed": passed, "failed": evaluation.failed, "summary": evaluation.summary()})
    return passed


def run_report(source: Path, out: Path | None, output: Output) -> None:
    """Write the page of results that are there."""
    results = source if source.suffix == ".json" else latest(read_config(source).folder)
    data, title = read_results(results)
    page = comparison_report(data, results.parent / PAGE if out is None else out, title)
    output.say(f"{results} as a page: {page}")
    output.result({"report": str(page), "results": str(results)})


def _opened(path: Path, output: Output) -> tuple[Config, Project]:
    config = read_config(path)
    with output.logged():
        project = open_project(config, output)
    for note in project.notes:
        output.say(note)
    return config, project


def _made(config: Config) -> Path:
    if config.folder.is_file():
        raise ModelError(f"output.folder: {config.folder} is a file")
    config.folder.mkdir(parents=True, exist_ok=True)
    return config.folder


def _logs(config: Config) -> list[Any]:
    """The log of the epochs, where one is asked for."""
    if config.training.log is None:
        return []
    from decigrad.callbacks import JSONLLog

    return [JSONLLog(config.path(config.training.log))]


def _judged(
    predictor: Any, project: Project, name: str, seed: int, history: Any = None, seconds: float = np.nan
) -> Run:
    evaluation = dg.evaluate(predictor, project.layer, project.test, name=name)
    return Run(seed, evaluation, history or {}, seconds)


def _settings(config: Config, project: Project) -> dict[str, Any]:
    t = config.training
    return {
        "model": project.layer.model.name,
        "predictor": str(project.predictor),
        "solver": project.layer.why,
        "training samples": len(project.train),
        "test samples": len(project.test),
        "epochs": t.epochs,
        "batch size": t.batch_size,
        "learning rate": t.learning_rate,
        "selection": t.selection,
        "seed": t.seed,
    }


def _tell(output: Output, data: ComparisonData) -> None:
    """Regret by method, in a table narrow enough for a terminal, and the verdicts."""
    from rich.markup import escape
    from rich.table import Table

    unit = f", {data.unit}" if data.unit else ""
    table = Table("method", title=f"test regret ({len(data.seeds)} seed{'s' * (len(data.seeds) > 1)})")
    for heading in (f"mean regret{unit}", "± over seeds", "% of optimum", "failed"):
        table.add_column(heading, justify="right")
    for method, found in summary(data).items():
        regret, error, share = (found[k] for k in ("mean_regret", "standard_error", "normalized_regret"))
        cells = format_number(regret), format_number(error), format_number(100 * share), str(found["failed"])
        table.add_row(escape(method), *cells)
    output.say(table)
    for method in data.challengers:
        output.say(data.verdict(method).text)


def _simple(chosen: dict[str, Any]) -> dict[str, Any]:
    """What was chosen, as JSON has it: an infinite weight is the text "inf"."""
    found: dict[str, Any] = {}
    for key, value in chosen.items():
        if isinstance(value, dict):
            found[key] = _simple(value)
        elif isinstance(value, float | np.floating) and not np.isfinite(value):
            found[key] = str(float(value))
        else:
            found[key] = value.item() if isinstance(value, np.generic) else value
    return found
