"""What a `fit` tells while it trains: one event an epoch, to any callable.

    dg.fit(..., callbacks=[dg.callbacks.JSONLLog("run.jsonl"), lambda event: event.epoch >= 20])

A callback that returns True ends the phase after this epoch, with the best found so far. A callback that is a
context manager is entered for the training. Its exceptions end the fit; a checkpoint stays as it was.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import re
import signal
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from decigrad.errors import ModelError


@dataclass(frozen=True)
class Event:
    """The end of an epoch.

    Attributes:
        fit: when the fit was first started; the same after it was resumed.
        method: the candidate of `Auto`, "" otherwise.
        phase: "two-stage", "two-stage by fold", "cross-validation", "training", or "two-stage on all data",
            which is what `HoldOut` ends with where no epoch was better.
        epoch: from 1.
        epochs: of the phase, at most.
        loss: mean training loss, over all folds and candidates in "cross-validation".
        validation: in "training": the loss on `validation` data, or on what `HoldOut` held out.
        gain: in "cross-validation": held-out gain over two-stage of the best candidate so far.
        failed: samples without a decision.
        solver_calls: programs that this method has solved so far.
        seconds: wall time of the epoch.
    """

    fit: str
    method: str
    phase: str
    epoch: int
    epochs: int
    loss: float
    validation: float | None
    gain: float | None
    failed: int
    solver_calls: int
    seconds: float

    @property
    def figures(self) -> dict[str, float]:
        """What was measured, by name."""
        found = {"loss": self.loss, "validation": self.validation, "gain": self.gain, "failed": self.failed}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def title(self) -> str:
        """The phase, with the method where there are several."""
        return f"{self.method}/{self.phase}" if self.method else self.phase


class Callbacks(contextlib.ExitStack):
    """Several callbacks as one."""

    def __init__(self, callbacks: Iterable[Callable[[Event], Any]]) -> None:
        super().__init__()
        self._all = list(callbacks)
        for each in self._all:
            if not callable(each):
                raise ModelError(f"a callback must be callable with an event, got {each!r}")

    def __enter__(self) -> Callbacks:
        with contextlib.ExitStack() as entered:  # left again where a later one cannot be entered
            for each in self._all:
                if isinstance(each, contextlib.AbstractContextManager):  # whatever has its two methods
                    entered.enter_context(each)
            self.push(entered.pop_all())
        return self

    def __call__(self, event: Event) -> bool:
        """Tell all; whether one of them ends the phase."""
        answers = [each(event) for each in self._all]
        return any(isinstance(answer, bool | np.bool_) and bool(answer) for answer in answers)


class Interrupts:
    """Keeps a Ctrl-C from being lost: one that falls into a callback of the garbage collector (JAX has one)
    is printed and ignored by Python. It is raised again at the end of the epoch.

    Only where Python's own handler is in place, in the main thread.
    """

    def __init__(self) -> None:
        self._asked = self._mine = False

    def __enter__(self) -> Interrupts:
        here = threading.current_thread() is threading.main_thread()
        self._mine = here and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._mine:
            signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(self, *error: object) -> None:
        if self._mine:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __call__(self, event: Event) -> None:
        """Raise what was lost."""
        if self._asked:
            raise KeyboardInterrupt

    def _remember(self, number: int, frame: Any) -> None:
        self._asked = True
        raise KeyboardInterrupt


class JSONLLog:
    """Appends every event to a file, a JSON object a line, on the disk at once.

    An epoch that is there already is not written again, so a fit that was resumed leaves one line for each;
    the log of another fit is kept. A last line that a kill has cut short is removed.

    Args:
        path: the file; it and its folder are created where there is none.
    """

    def __init__(self, path: Any) -> None:
        self.path = Path(path)
        self._there: set[tuple[Any, ...]] | None = None

    def __call__(self, event: Event) -> None:
        """Append it."""
        if self._there is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._there = self._read()
        line = {k: None if _lost(v) else v for k, v in asdict(event).items()}
        if _place(line) not in self._there:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._there.add(_place(line))

    def _read(self) -> set[tuple[Any, ...]]:
        """The epochs in the file."""
        if not self.path.exists():
            return set()
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            found = {_place(json.loads(line)) for line in whole.splitlines()}
        except (ValueError, KeyError, TypeError):
            raise ModelError(f"{str(self.path)!r} is not a log of fit: give another file") from None
        if len(whole) < len(content):
            with open(self.path, "r+b") as file:
                file.truncate(len(whole))
        return found


def _place(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["fit"], line["method"], line["phase"], line["epoch"]


def _lost(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


class TensorBoard:
    """Writes curves for TensorBoard, by tensorboardX, which needs no PyTorch. Extra: `decigrad[tensorboard]`.

    Args:
        folder: the log directory: `tensorboard --logdir FOLDER`.

    Raises:
        ImportError: tensorboardX is not installed.
    """

    def __init__(self, folder: Any) -> None:
        self.folder = Path(folder)
        self._module = _needed("tensorboardX", "tensorboard", "tensorboardX")
        self._writer: Any = None

    def __enter__(self) -> TensorBoard:
        self._writer = self._module.SummaryWriter(str(self.folder))
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def __call__(self, event: Event) -> None:
        """One point of each curve."""
        for name, value in event.figures.items():
            self._writer.add_scalar(f"{event.title}/{name}", value, event.epoch)
        self._writer.flush()


class MLflow:
    """Logs to an MLflow run; a fit that was resumed goes on with its run. Extra: `decigrad[mlflow]`.

    Args:
        experiment: its name; it is created where there is none.
        run_name: of the run; by default MLflow's choice.
        tracking_uri: of the server; by default MLflow's own setting. For a database of one's own install all
            of MLflow.

    Raises:
        ImportError: MLflow is not installed.
    """

    def __init__(
        self, experiment: str = "decigrad", run_name: str | None = None, tracking_uri: str | None = None
    ) -> None:
        self.experiment, self.run_name = experiment, run_name
        self._client = _needed("mlflow", "mlflow", "MLflow").MlflowClient(tracking_uri)
        self._fit, self._run, self._there = "", "", dict[str, set[int]]()

    def __enter__(self) -> MLflow:
        return self

    def __exit__(self, kind: Any, *error: object) -> None:
        if self._run:
            ended = "KILLED" if kind is KeyboardInterrupt else "FINISHED" if kind is None else "FAILED"
            self._client.set_terminated(self._run, ended)
        self._fit, self._run = "", ""

    def __call__(self, event: Event) -> None:
        """One point of each metric."""
        if event.fit != self._fit:
            self._begin(event.fit)
        for name, value in event.figures.items():
            metric = re.sub(r"[^\w\-. /]", "_", f"{event.title}/{name}")
            if metric not in self._there:
                known = self._client.get_metric_history(self._run, metric)
                self._there[metric] = {point.step for point in known}
            if event.epoch not in self._there[metric]:
                self._client.log_metric(self._run, metric, value, step=event.epoch)

    def _begin(self, fit: str) -> None:
        """The run of this fit: the one it had, or a new one."""
        found = self._client.get_experiment_by_name(self.experiment)
        number = found.experiment_id if found else self._client.create_experiment(self.experiment)
        runs = self._client.search_runs([number], f"tags.`decigrad.fit` = '{fit}'")
        run = runs[0] if runs else self._client.create_run(
            number, tags={"decigrad.fit": fit}, run_name=self.run_name
        )  # fmt: skip
        self._fit, self._run, self._there = fit, run.info.run_id, {}
        if runs:
            self._client.update_run(self._run, status="RUNNING")


def _needed(module: str, extra: str, product: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{product} is not installed: pip install 'decigrad[{extra}]'") from error
