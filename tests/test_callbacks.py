"""What a fit tells, to whom, and what an answer does."""

from __future__ import annotations

import contextlib
import json
import signal
import struct
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import optax
import pytest

import decigrad as dg
from decigrad import steps
from decigrad.callbacks import Event, JSONLLog, MLflow, TensorBoard
from decigrad.errors import ModelError
from decigrad.losses import MSE

RATE = optax.sgd(0.05)
FOLDS = dg.CrossValidation(folds=2, weights=(0.0,), caution=0.0)


def layer() -> dg.DecisionLayer:
    m = dg.Model("simplex")
    x, c = m.continuous("x", shape=3, lb=0.0, ub=1.0), m.parameter("cost", shape=3)
    m.minimize(dg.sum(c * x) + 0.4 * dg.sum(x * x))
    m.subject_to(dg.sum(x) == 1.0)
    return dg.DecisionLayer(m, solver="daqp")


LAYER = layer()
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(16, 2))
COSTS = 2.0 + FEATURES @ RNG.normal(size=(2, 3)) + 0.6 * FEATURES[:, :1] * FEATURES[:, 1:] * [1.0, -1.0, 0.5]


def fit(*callbacks: Any, **options: Any) -> dg.FitResult:
    data = dg.Dataset(FEATURES, {"cost": COSTS})
    options = {"selection": None, "epochs": 3, "batch_size": 8, "optimizer": RATE, **options}
    return dg.fit(dg.Linear(), LAYER, data, progress=False, callbacks=callbacks, **options)


def test_every_epoch_of_every_phase_is_told():
    events: list[Event] = []
    found = fit(events.append, selection=FOLDS, validation=dg.Dataset(FEATURES, {"cost": COSTS}))
    assert [(e.phase, e.epoch, e.epochs) for e in events[:3]] == [
        ("cross-validation", epoch, 3) for epoch in (1, 2, 3)
    ]
    final = events[3:]
    assert [e.epoch for e in final] == list(range(1, found.chosen["epochs"] + 1))
    assert [e.loss for e in final] == found.history["loss"] and {e.phase for e in final} == {"training"}
    assert [e.validation for e in final] == found.history["validation"]
    assert all(e.gain is None for e in final) and events[2].gain == found.chosen["gain"]
    assert final[-1].solver_calls == found.solver_calls and [e.seconds for e in final] == found.epoch_seconds
    assert len({e.fit for e in events}) == 1 and {e.method for e in events} == {""}


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes in the background of a shell ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_was_swallowed_ends_the_fit_with_its_epoch(interruptible):
    def collector(event: Event) -> None:
        with contextlib.suppress(
            KeyboardInterrupt
        ):  # as the interpreter does around a callback of its collector
            signal.raise_signal(signal.SIGINT)

    found = fit(collector)
    assert found.interrupted and len(found.epoch_seconds) <= 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not fit().interrupted


def test_a_log_makes_its_folder(tmp_path):
    fit(JSONLLog(tmp_path / "a" / "b" / "run.jsonl"))
    assert len((tmp_path / "a" / "b" / "run.jsonl").read_text().splitlines()) == 3


def test_true_ends_the_phase_with_the_best_and_nothing_else_does():
    stopped = fit(lambda event: event.epoch == 2, epochs=9)
    plain = fit(epochs=2)
    np.testing.assert_array_equal(stopped.predictor.weight, plain.predictor.weight)
    assert stopped.history == plain.history and not stopped.interrupted
    assert len(fit(lambda event: 1).history["loss"]) == 3  # what `file.write` returns is no answer
    phases: list[str] = []
    found = fit(
        lambda event: event.phase == "cross-validation" and event.epoch == 1,
        lambda event: phases.append(event.phase),
        selection=FOLDS,
    )
    assert phases[0] == "cross-validation" and set(phases[1:]) <= {"training"}
    assert found.chosen["epochs"] == len(phases) - 1 == 1


def test_a_stop_is_remembered_by_the_checkpoint(tmp_path):
    class Stop(Exception):
        pass

    def twice(event: Event) -> bool:
        return event.phase == "cross-validation" and event.epoch == 1

    def fail(event: Event) -> None:
        if event.phase == "training":
            raise Stop

    with pytest.raises(Stop):
        fit(twice, fail, selection=FOLDS, checkpoint=tmp_path / "run.ckpt")
    events: list[Event] = []
    found = fit(events.append, selection=FOLDS, checkpoint=tmp_path / "run.ckpt")
    assert [e.phase for e in events] == ["training"] and found.chosen["epochs"] == 1


def test_a_context_manager_is_entered_and_left_whatever_happens(monkeypatch):
    class Watch:
        def __init__(self) -> None:
            self.log: list[Any] = []

        def __enter__(self) -> None:
            self.log.append("enter")

        def __exit__(self, kind: Any, *error: Any) -> None:
            self.log.append(kind)

        def __call__(self, event: Event) -> None:
            self.log.append(event.epoch)

    class Broken(Exception):
        pass

    def broken(event: Event) -> None:
        raise Broken

    watch = Watch()
    fit(watch, epochs=2)
    assert watch.log == ["enter", 1, 2, None]
    with pytest.raises(Broken):
        fit(broken, watch)
    assert watch.log[4:] == ["enter", Broken]

    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    class Closed(Watch):
        def __enter__(self) -> None:
            raise Broken

    with pytest.raises(Broken):
        fit(watch, Closed())
    assert watch.log[6:] == ["enter", Broken]

    monkeypatch.setattr(steps, "update", interrupt)
    assert fit(watch).interrupted and watch.log[8:] == ["enter", KeyboardInterrupt]


def test_what_is_no_callback_is_refused():
    with pytest.raises(ModelError, match="callable"):
        fit("log.jsonl")


# ----------------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize("schedule", [lambda step: 0.1 / (1.0 + step), 0.05], ids=["schedule", "rate"])
def test_rates_and_clipping_are_those_of_a_loop_in_numpy(schedule):
    """Mean squared error of a plain linear predictor; every step's global norm is at most `clip`."""
    clip, data = 0.3, dg.Dataset(FEATURES, {"cost": COSTS})
    found = dg.fit(
        dg.Linear(bias=False), LAYER, data, MSE(), selection=None, epochs=4, batch_size=16, clip=clip,
        optimizer=optax.sgd(schedule), progress=False,
    )  # fmt: skip
    weight = np.zeros((3, 2))
    for step in range(4):
        gradient = 2.0 * (FEATURES @ weight.T - COSTS).T @ FEATURES / COSTS.size
        gradient *= min(1.0, clip / np.linalg.norm(gradient))
        weight = weight - (schedule(step) if callable(schedule) else schedule) * gradient
    np.testing.assert_allclose(found.predictor.coefficients[0], weight, atol=1e-12)


def test_a_schedule_drives_adam():
    """A rate of zero from the second step on; Adam's first step moves every entry by the rate."""
    data = dg.Dataset(FEATURES, {"cost": COSTS})
    found = dg.fit(
        dg.Linear(bias=False), LAYER, data, MSE(), selection=None, epochs=3, batch_size=16, progress=False,
        learning_rate=lambda step: 0.25 * (step == 0),
    )  # fmt: skip
    slope = -2.0 * COSTS.T @ FEATURES
    np.testing.assert_allclose(found.predictor.coefficients[0], -0.25 * np.sign(slope), rtol=1e-5)


@pytest.mark.parametrize("options", [{"clip": 0.0}, {"clip": -1.0}, {"learning_rate": float("nan")}])
def test_impossible_rates_and_norms_are_refused(options):
    with pytest.raises(ModelError, match=next(iter(options))):
        fit(**options)


def test_hold_out_waits_for_its_patience():
    """Uphill, no epoch is better than two-stage: it ends after `patience` of them."""
    found = fit(selection=dg.HoldOut(0.25, patience=2), epochs=9, optimizer=optax.sgd(-0.5))
    assert len(found.history["loss"]) == 2 and found.chosen["epochs"] == 0
    with pytest.raises(ModelError, match="patience"):
        dg.HoldOut(patience=0)


# ------------------------------------------------------------------------------------------------ the logs


def lines(path: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_log_has_each_epoch_once_whatever_happened(tmp_path):
    log, checkpoint = tmp_path / "run.jsonl", tmp_path / "run.ckpt"
    fit(JSONLLog(log), epochs=2)

    class Stop(Exception):
        pass

    def stop(event: Event) -> None:
        if event.epoch == 4:
            raise Stop

    options = {"epochs": 6, "checkpoint": checkpoint, "checkpoint_every": 3}
    with pytest.raises(Stop):
        fit(JSONLLog(log), stop, **options)  # the fourth epoch is in the log, and not in the checkpoint
    with open(log, "a") as file:
        file.write('{"fit": "a line that a kill cut sh')
    found = fit(JSONLLog(log), **options)
    written = lines(log)
    assert [line["epoch"] for line in written] == [1, 2, 1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in written[2:]] == found.history["loss"]
    assert len({line["fit"] for line in written}) == 2 and all(line["gain"] is None for line in written)
    log.write_text("epoch,loss\n1,2\n")
    with pytest.raises(ModelError, match="not a log"):
        fit(JSONLLog(log))


def records(path: Any) -> list[bytes]:
    """The records of a TensorBoard file: length, its checksum, data, their checksum."""
    content, found = path.read_bytes(), []
    while content:
        (size,) = struct.unpack("<Q", content[:8])
        found.append(content[12 : 12 + size])
        content = content[16 + size :]
    return found


def test_tensorboard_gets_every_figure(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event as Record

    found = fit(TensorBoard(tmp_path))
    (path,) = tmp_path.iterdir()
    read = [Record.FromString(record) for record in records(path)]
    points = [
        (value.tag, record.step, value.simple_value) for record in read for value in record.summary.value
    ]
    losses = [value for tag, _, value in points if tag == "training/loss"]
    np.testing.assert_allclose(losses, found.history["loss"], rtol=1e-6)
    assert {tag for tag, _, _ in points} == {"training/loss", "training/failed"}
    assert [step for tag, step, _ in points if tag == "training/loss"] == [1, 2, 3]


class Server:
    """MLflow's client, as far as it is used, with its rule for the names of metrics."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="7") if name == "there" else None

    def create_experiment(self, name: str) -> str:
        return "8"

    def search_runs(self, experiments: list[str], text: str) -> list[Any]:
        wanted = text.split("'")[1]
        return [self._run(i) for i, run in self.runs.items() if run["tags"] == {"decigrad.fit": wanted}]

    def create_run(self, experiment: str, tags: dict[str, str], run_name: str | None) -> Any:
        self.runs[str(len(self.runs))] = {"at": experiment, "tags": tags, "name": run_name, "metrics": []}
        return self._run(str(len(self.runs) - 1))

    def update_run(self, run: str, status: str) -> None:
        self.runs[run]["status"] = status

    set_terminated = update_run

    def log_metric(self, run: str, key: str, value: float, step: int) -> None:
        assert all(letter.isalnum() or letter in "_-. /" for letter in key)
        self.runs[run]["metrics"].append((key, step, value))

    def get_metric_history(self, run: str, key: str) -> list[Any]:
        return [SimpleNamespace(step=step) for k, step, _ in self.runs[run]["metrics"] if k == key]

    def _run(self, number: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id=number))


def test_mlflow_goes_on_with_the_run_of_a_resumed_fit(tmp_path, monkeypatch):
    server = Server()
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=lambda uri: server))

    class Stop(Exception):
        pass

    def stop(event: Event) -> None:
        if event.epoch == 2:
            raise Stop

    path = tmp_path / "run.ckpt"
    with pytest.raises(Stop):
        fit(MLflow("there", "mine"), stop, checkpoint=path)
    assert server.runs["0"]["status"] == "FAILED" and server.runs["0"]["at"] == "7"
    found = fit(MLflow("there"), checkpoint=path)
    assert list(server.runs) == ["0"] and server.runs["0"]["status"] == "FINISHED"
    losses = [(step, value) for key, step, value in server.runs["0"]["metrics"] if key == "training/loss"]
    assert losses == list(enumerate(found.history["loss"], start=1))
    fit(MLflow(), loss=dg.Auto(("regret",)), selection=FOLDS, epochs=1)
    assert {key.split("/")[0] for key, _, _ in server.runs["1"]["metrics"]} == {"regret"}


@pytest.mark.parametrize(
    ("module", "make"),
    [("tensorboardX", lambda: TensorBoard("runs")), ("mlflow", MLflow)],
    ids=["tensorboard", "mlflow"],
)
def test_a_missing_package_names_its_extra(module, make, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"decigrad\[{module.lower().removesuffix('x')}\]"):
        make()
