"""A fit that is stopped anywhere and called again ends with the bits of one that never was."""

from __future__ import annotations

import copy
import errno
import logging
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
from collections import deque
from typing import Any

import jax
import numpy as np
import optax
import pytest
from sklearn.tree import DecisionTreeRegressor

import decigrad as dg
from decigrad import steps
from decigrad.checkpoint import pack, read, unpack
from decigrad.errors import ModelError, SolveError
from decigrad.fingerprint import digest
from decigrad.losses import MSE, Regret, SPOPlus
from decigrad.problems import shortest_path_layer

EPS, ONE_RATE, SCHEDULE = 0.4, optax.sgd(0.05), optax.cosine_decay_schedule(0.05, 20)
EDGE = np.arange(8.0)[:, None]


def simplex(solver: str = "daqp") -> dg.DecisionLayer:
    m = dg.Model("simplex")
    x, c = m.continuous("x", shape=3, lb=0.0, ub=1.0), m.parameter("cost", shape=3)
    m.minimize(dg.sum(c * x) + EPS * dg.sum(x * x))
    m.subject_to(dg.sum(x) == 1.0)
    return dg.DecisionLayer(m, solver=solver)


def linear(solver: str = "highs") -> dg.DecisionLayer:
    return dg.DecisionLayer(shortest_path_layer(2, 2).model, solver=solver)


def samples(size: int = 3, n: int = 16, seed: int = 0) -> dg.Dataset:
    """Fresh at every call: a dataset remembers its labels, and then fewer programs are solved."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 2))
    bent = 0.6 * features[:, :1] * features[:, 1:] * rng.normal(size=(1, size))
    return dg.Dataset(features, {"cost": 2.0 + features @ rng.normal(size=(2, size)) + bent})


def grouped(data: dg.Dataset) -> dg.Dataset:
    return dg.Dataset(data.features, data.targets, groups=np.arange(len(data)) // 2)


BASE: dict[str, Any] = {"epochs": 3, "batch_size": 8, "seed": 0}
FOLDS = dg.CrossValidation(folds=2, weights=(0.0, 1.0))
TRAINED = dg.CrossValidation(folds=2, weights=(0.0,), caution=-1e9)  # whatever comes of it
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "regret, daqp, folds": (simplex, {"loss": Regret(), "selection": FOLDS, "optimizer": ONE_RATE}),
    "hold-out, schedule": (
        simplex,
        {"loss": Regret(), "selection": dg.HoldOut(0.25, patience=2), "learning_rate": SCHEDULE, "clip": 0.5},
    ),
    "interior point": (
        lambda: simplex("interior-point"),
        {"loss": Regret(), "selection": None, "proximal_weight": 0.1, "optimizer": ONE_RATE},
    ),
    "network with its twin": (
        simplex,
        {"predictor": dg.MLP((3,)), "loss": Regret(), "selection": TRAINED, "validation": samples},
    ),
    "spo+ on highs, pool, averages": (
        linear,
        {"loss": SPOPlus(), "solve_ratio": 0.5, "selection": None, "proximal_weight": 0.1},
    ),
    "auto": (linear, {"loss": dg.Auto(("spo+", "pairwise")), "selection": FOLDS}),
}


def fit(name: str, **changes: Any) -> dg.FitResult:
    make, options = CASES[name]
    layer = make()
    data = samples(layer.parameters["cost"].shape[0])
    settings = {"predictor": dg.Linear(), "data": data, **BASE, **options, **changes}
    if callable(settings.get("validation")):
        settings["validation"] = settings["validation"]()
    return dg.fit(settings.pop("predictor"), layer, settings.pop("data"), progress=False, **settings)


def assert_same(found: Any, expected: Any) -> None:
    for name in ("predictor", "two_stage"):
        pairs = zip(*(jax.tree_util.tree_leaves(getattr(r, name)) for r in (found, expected)), strict=True)
        assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    for name in ("history", "chosen", "solver_calls", "saved_calls", "failures", "interrupted"):
        assert getattr(found, name) == getattr(expected, name), name


class Stop(Exception):
    """What a callback raises to stand for a kill."""


def stopping(at: int):
    count = iter(range(at, -1, -1))

    def callback(event: dg.callbacks.Event) -> None:
        if next(count, None) == 0:
            raise Stop

    return callback


@pytest.fixture(scope="module")
def whole() -> dict[str, tuple[dg.FitResult, list[Any]]]:
    """Every case without an interruption, and without a checkpoint, with its events; made when asked for."""
    made: dict[str, tuple[dg.FitResult, list[Any]]] = {}

    class Made(dict):
        def __missing__(self, name: str) -> tuple[dg.FitResult, list[Any]]:
            events: list[Any] = []
            made[name] = self[name] = fit(name, callbacks=[events.append]), events
            return made[name]

    return Made()


@pytest.mark.parametrize(
    "name",  # the interior point compiles for long
    [pytest.param(name, marks=[pytest.mark.slow] if name == "interior point" else []) for name in CASES],
)
def test_stopped_in_every_phase_and_resumed_is_uninterrupted(name, whole, tmp_path):
    expected, events = whole[name]
    titles = [event.title for event in events]
    # in the second epoch of each, or its only one
    places = sorted({titles.index(title) + (titles.count(title) > 1) for title in titles})
    path = tmp_path / "run.ckpt"
    before = 0
    for place in places:
        with pytest.raises(Stop):
            fit(name, checkpoint=path, callbacks=[stopping(place - before)])
        before = place  # the epoch whose callback raised is not in the file: it comes again
    seen: list[Any] = []
    found = fit(name, checkpoint=path, callbacks=[seen.append])
    assert_same(found, expected)
    assert [(e.title, e.epoch) for e in seen] == [(e.title, e.epoch) for e in events][before:]
    again = fit(name, checkpoint=path, callbacks=[lambda event: pytest.fail("trained again")])
    assert_same(again, expected)
    assert again.epoch_seconds == found.epoch_seconds and len(found.epoch_seconds) == len(
        found.history["loss"]
    )


def test_an_interval_loses_no_more_than_itself(whole, tmp_path):
    name = "regret, daqp, folds"
    path = tmp_path / "run.ckpt"
    files = []

    def watch(event: Any) -> None:
        files.append(path.read_bytes() if path.exists() else None)

    found = fit(name, checkpoint=path, checkpoint_every=2, callbacks=[watch])
    assert_same(found, whole[name][0])
    assert files[:3] == [None, None, files[2]] and files[2] is not None  # after two epochs, not before
    assert files[3] == files[2]


# ---------------------------------------------------------------------------------------------- kills

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import numpy as np, jax
from test_checkpoint import fit
found = fit({name!r}, checkpoint={path!r}, epochs={epochs})
leaves = jax.tree_util.tree_leaves(found.predictor)
np.savez({out!r}, *leaves, calls=found.solver_calls, loss=found.history["loss"])
"""


def killed(name: str, epochs: int, kills: int, tmp_path: pathlib.Path) -> None:
    """`kill -9` at random moments after the first checkpoint, until so many have hit; then to the end."""
    path, out = tmp_path / "run.ckpt", tmp_path / "out.npz"
    code = SCRIPT.format(
        tests=str(pathlib.Path(__file__).parent), name=name, path=str(path), out=str(out), epochs=epochs
    )
    rng, hits = random.Random(0), 0
    for _ in range(3 * kills + 1):
        process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "JAX_PLATFORMS": "cpu"})
        stamp = path.stat().st_mtime_ns if path.exists() else 0
        while hits < kills and process.poll() is None:
            if path.exists() and path.stat().st_mtime_ns != stamp:
                time.sleep(rng.uniform(0.0, 0.05))
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        if process.wait() == -signal.SIGKILL:
            hits += 1
            read(path)  # whole, whenever it was hit
        else:
            assert process.returncode == 0
            break
    assert hits == kills, "the fit was too short for so many kills"
    expected = fit(name, epochs=epochs)
    with np.load(out) as file:
        for number, leaf in enumerate(jax.tree_util.tree_leaves(expected.predictor)):
            np.testing.assert_array_equal(file[f"arr_{number}"], leaf)
        assert int(file["calls"]) == expected.solver_calls
        assert file["loss"].tolist() == expected.history["loss"]


@pytest.mark.timeout(600)
def test_three_kills_change_no_bit(tmp_path):
    killed("spo+ on highs, pool, averages", 200, 3, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "name", ["regret, daqp, folds", "spo+ on highs, pool, averages", "network with its twin"]
)
def test_twenty_kills_change_no_bit(name, tmp_path):
    killed(name, 400, 20, tmp_path)


# ------------------------------------------------------------------------------------- Ctrl-C and failures


@pytest.mark.parametrize("phase", ["two-stage", "two-stage by fold", "cross-validation", "training"])
def test_ctrl_c_in_any_phase_returns_the_best_and_is_resumed(phase, whole, tmp_path):
    name = "network with its twin"

    def interrupt(event: Any) -> None:
        if (event.phase, event.epoch) == (phase, 2):
            raise KeyboardInterrupt

    path = tmp_path / "run.ckpt"
    broken = fit(name, checkpoint=path, checkpoint_every=100, callbacks=[interrupt])
    assert broken.interrupted and path.exists()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree_util.tree_leaves(broken.predictor))
    untrained = dg.MLP((3,)).init(samples(), (("cost", (3,)),), 0)
    assert not np.array_equal(broken.predictor.layers[0].weight, untrained.layers[0].weight)
    assert_same(fit(name, checkpoint=path, checkpoint_every=100), whole[name][0])


def test_ctrl_c_before_anything_is_trained_is_raised(monkeypatch):
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit("network with its twin")


def test_a_gradient_that_is_not_finite_names_its_sample(tmp_path):
    """The root's slope is infinite where the prediction is exact: at the sample whose features are zero."""
    data = samples()
    data.features[5], data.targets["cost"][5] = 0.0, 2.0
    with jax.enable_x64(True):
        start = (
            dg.Linear(standardize=False)
            .init(data, (("cost", (3,)),))
            .with_coefficients(np.full((3, 2), 0.1), np.full(3, 2.0))
        )

    class Root(MSE):
        def value(self, layer, predicted, answers, batch):
            return abs(predicted["cost"] - batch.targets["cost"]).sum(-1) ** 0.5

    steady = {"selection": None, "warm_start": False, "predictor": start, "optimizer": optax.sgd(0.0)}
    path = tmp_path / "run.ckpt"
    with pytest.raises(
        SolveError, match=r"NaN or infinite at sample 5 of the data. Its predictions are finite"
    ):
        fit("regret, daqp, folds", data=data, loss=Root(), checkpoint=path, **steady)
    data.weights[5] = 0.0
    data.features[5] = 1.0
    found = fit("regret, daqp, folds", data=data, loss=Root(), **steady)
    assert len(found.history["loss"]) == 3


@pytest.mark.parametrize(
    ("layer", "loss"),
    [
        pytest.param(simplex(), Regret(), id="host"),
        pytest.param(shortest_path_layer(2, 2), SPOPlus(), id="device", marks=pytest.mark.slow),
    ],
)
def test_steps_that_run_away_are_said_and_the_weights_before_are_kept(layer, loss, tmp_path):
    def rate(step: Any) -> Any:
        return jax.numpy.where(step < 4, 0.01, jax.numpy.inf)  # two epochs of two steps

    data = samples(layer.parameters["cost"].shape[0])
    options = {"loss": loss, "selection": None, "batch_size": 8, "averaging": False, "progress": False}
    for _ in range(2):  # resumed, it fails again at the same place
        path = tmp_path / "run.ckpt"
        with pytest.raises(SolveError, match="each sample is finite: lower learning_rate") as caught:
            dg.fit(dg.Linear(), layer, data, learning_rate=rate, epochs=5, checkpoint=path, **options)
    kept = caught.value.result
    expected = dg.fit(dg.Linear(), layer, data, learning_rate=0.01, epochs=2, **options)
    assert kept.history["loss"] == pytest.approx(expected.history["loss"])
    np.testing.assert_allclose(kept.predictor.weight, expected.predictor.weight, atol=1e-12)


def test_a_full_disk_is_said_once_and_loses_nothing(whole, tmp_path, monkeypatch, caplog):
    name = "regret, daqp, folds"
    path = tmp_path / "run.ckpt"
    with pytest.raises(Stop):
        fit(name, checkpoint=path, callbacks=[stopping(2)])
    old = path.read_bytes()
    real = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING, logger="decigrad"):
        found = fit(name, checkpoint=path)
    assert_same(found, whole[name][0])
    said = [r.getMessage() for r in caplog.records if "could not be written" in r.getMessage()]
    assert len(said) == 1 and str(path) in said[0] and "No space left" in said[0]
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]
    monkeypatch.setattr(os, "fsync", real)
    assert_same(fit(name, checkpoint=path), whole[name][0])


# ------------------------------------------------------------------------------------------------ refusals


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("begun") / "run.ckpt"
    with pytest.raises(Stop):
        fit("regret, daqp, folds", checkpoint=path, callbacks=[stopping(1)])
    return path


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data": samples(seed=1)}, "data"),
        ({"data": grouped(samples())}, "data"),  # its folds are others
        ({"loss": Regret(cost=lambda x, p: x["x"].sum())}, "loss"),
        ({"seed": 1}, "seed"),
        ({"seed": np.random.default_rng(1)}, "seed"),
        ({"epochs": 4, "batch_size": 7}, "epochs, batch_size"),
        ({"optimizer": optax.sgd(0.06)}, "optimizer"),
        ({"clip": 1.0, "learning_rate": 0.02}, "learning_rate, clip"),
        ({"selection": dg.HoldOut()}, "selection"),
        ({"predictor": dg.Linear(bias=False)}, "predictor"),
        ({"validation": samples(seed=3)}, "validation"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_checkpoint_of_another_fit_is_refused_by_name(changes, named, begun):
    old = begun.read_bytes()
    with pytest.raises(ModelError, match=rf"it differs in {named}\. .*remove this one") as caught:
        fit("regret, daqp, folds", checkpoint=begun, **changes)
    assert str(begun) in str(caught.value) and begun.read_bytes() == old


def test_a_checkpoint_of_another_model_is_refused(begun, monkeypatch):
    monkeypatch.setitem(globals(), "EPS", 0.5)
    with pytest.raises(ModelError, match="it differs in layer"):
        fit("regret, daqp, folds", checkpoint=begun)


def test_damaged_and_newer_files_are_refused(begun, tmp_path):
    content, path = begun.read_bytes(), tmp_path / "run.ckpt"
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    head, _, body = content.partition(b"\n")
    other_state = pack({**unpack(body), "seconds": 0.0})  # readable, but not as written
    for other, message in (
        (bytes(flipped), r"damaged.*SHA-256"),
        (content[:-10], r"damaged.*SHA-256"),
        (head + b"\n" + other_state, r"damaged.*SHA-256"),
        (b"", "not a checkpoint"),
        (b"PK\x03\x04 something else", "not a checkpoint"),
        (content.replace(b"checkpoint 1 ", b"checkpoint 7 ", 1), "version 7"),
    ):
        path.write_bytes(other)
        with pytest.raises(ModelError, match=message):
            fit("regret, daqp, folds", checkpoint=path)
        assert path.read_bytes() == other
    with pytest.raises(ModelError, match="folder must exist"):
        fit("regret, daqp, folds", checkpoint=tmp_path / "nowhere" / "run.ckpt")
    with pytest.raises(ModelError, match="at least 1"):
        fit("regret, daqp, folds", checkpoint=path, checkpoint_every=0)


def test_generators_of_numpy_are_put_back_and_others_refused(whole, tmp_path):
    name = "regret, daqp, folds"
    for kind in (np.random.default_rng, np.random.RandomState):
        expected, path = fit(name, seed=kind(0)), tmp_path / kind.__name__
        with pytest.raises(Stop):
            fit(name, seed=kind(0), checkpoint=path, callbacks=[stopping(1)])
        rng = kind(0)
        assert_same(fit(name, seed=rng, checkpoint=path), expected)

    class Mine:
        def permutation(self, n: int) -> np.ndarray:
            return np.arange(n)

    assert not fit(name, seed=Mine()).interrupted
    with pytest.raises(ModelError, match=r"default_rng"):
        fit(name, seed=Mine(), checkpoint=tmp_path / "mine")


def test_a_start_of_another_kind_is_refused():
    other = dg.Linear(bias=False).init(samples(), (("cost", (3,)),))
    with pytest.raises(ModelError, match="another kind or size"):
        fit("regret, daqp, folds", warm_start=other)


# ------------------------------------------------------------------------------------------------ its parts


def test_what_is_packed_comes_back_bit_for_bit():
    state = {
        "numbers": [1, -0.0, 1e-320, float("inf"), None, True, "text", np.float64(0.1), np.int32(3)],
        "arrays": [
            np.arange(6.0).reshape(2, 3)[:, ::2],
            np.zeros((0, 3), np.int8),
            np.array(2.5, np.float32),
        ],
        "half": jax.numpy.array([1.5, -2.0], jax.numpy.bfloat16),
        "rng": np.random.default_rng(3).bit_generator.state,
    }
    found = unpack(pack(state))
    assert found["numbers"] == state["numbers"] and np.signbit(found["numbers"][1])
    for a, b in zip([*found["arrays"], found["half"]], [*state["arrays"], state["half"]], strict=True):
        np.testing.assert_array_equal(a, np.asarray(b))
        assert a.dtype == b.dtype and a.shape == b.shape
    assert found["rng"] == state["rng"]


def test_digests_follow_content_not_identity():
    def cost(weight: float):
        return lambda x, p: weight * x["x"].sum()

    def tree(slope: float):
        return DecisionTreeRegressor(random_state=0).fit(EDGE, slope * EDGE[:, 0])

    equal = [
        lambda: Regret(cost=cost(1.0)), simplex, lambda: optax.adam(0.01), lambda: {"a", "b", "c"}, dg.MLP,
        lambda: optax.chain(optax.clip(1.0), optax.sgd(optax.constant_schedule(0.1))),
        lambda: samples().features, lambda: dg.MLP((3,)).init(samples(), (("cost", (3,)),), 0),
    ]  # fmt: skip
    found = [digest(make()) for make in equal]
    assert found == [digest(make()) for make in equal] and len(set(found)) == len(found)
    for one, other in (
        (cost(1.0), cost(2.0)),
        (optax.adam(0.01), optax.adam(0.02)),
        (simplex(), simplex("interior-point")),
        (np.zeros(3), np.zeros(3, np.float32)),
        (1, 1.5),
        ([1, [2]], [[1], 2]),
        (np.random.RandomState(0), np.random.RandomState(1)),
        (np.random.default_rng(0), np.random.default_rng(1)),
        (re.compile("a"), re.compile("b")),
        (range(3), range(4)),
        (deque([1]), deque([2])),
        (tree(1.0), tree(2.0)),  # its nodes are in compiled code
    ):
        assert digest(one) != digest(other)
        assert digest(one) == digest(copy.deepcopy(one))


def test_digests_of_a_schedule_are_those_before_it_was_used():
    schedule = optax.cosine_decay_schedule(0.05, 20)
    before = digest(schedule)
    schedule(3)
    assert digest(schedule) == before  # though optax has changed what it closes over


@pytest.mark.slow  # the kills above resume from the digests of other processes too
def test_digests_are_those_of_another_process():
    code = (
        f"import sys; sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})\n"
        "from test_checkpoint import *\n"
        "print(digest(simplex(), optax.adam(SCHEDULE), Regret(), {'a', 'b'}, dg.MLP((3,)).init(samples(), "
        "(('cost', (3,)),), 0)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    )
    network = dg.MLP((3,)).init(samples(), (("cost", (3,)),), 0)
    assert done.stdout.strip() == digest(simplex(), optax.adam(SCHEDULE), Regret(), {"a", "b"}, network)
