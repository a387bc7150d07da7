"""Labels: the same bits as a solve, solved once, whatever happens to the process, the disk and the files."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import decigrad as dg
from decigrad.labels import Store
from decigrad.problems import selection_layer

N = 23
COSTS = np.random.default_rng(0).normal(size=(N, 4))


SOLVED: list[int] = []
STOP_AFTER = [10**9]


def cheapest(costs: np.ndarray) -> np.ndarray:
    """The cheapest item. What it notes down is in globals, which are no part of a function's content."""
    if sum(SOLVED) + len(costs) > STOP_AFTER[0]:
        raise KeyboardInterrupt
    SOLVED.append(len(costs))
    return np.eye(costs.shape[1])[costs.argmin(1)]


@pytest.fixture(autouse=True)
def _nothing_solved_yet():
    SOLVED.clear()
    STOP_AFTER[0] = 10**9


def solved_since() -> int:
    """Samples that `cheapest` was asked for since this was called last."""
    count = sum(SOLVED)
    SOLVED.clear()
    return count


def dataset(costs: np.ndarray = COSTS) -> dg.Dataset:
    return dg.Dataset(np.ones((len(costs), 1)), {"cost": costs})


LAYER = dg.DecisionLayer(selection_layer(4, 1).model, solver=dg.Oracle(cheapest))


def quadratic() -> dg.Model:
    model = dg.Model("quadratic")
    x = model.continuous("x", shape=4, lb=0.0, ub=0.6)
    c, need = model.parameter("cost", shape=4), model.parameter("need", known=True)
    model.minimize(dg.sum(c * x) + 2 * dg.sum(x * x))
    model.subject_to(dg.sum(x) >= need, name="enough")
    return model


def knapsack() -> dg.Model:
    model = dg.Model("knapsack")
    x, c = model.binary("x", shape=4), model.parameter("cost", shape=4)
    need = model.parameter("need", known=True)
    model.minimize(dg.sum(c * x))
    model.subject_to(np.arange(1.0, 5.0) @ x >= 4 + need)
    return model


@pytest.mark.parametrize(("make", "solver"), [(quadratic, "daqp"), (knapsack, "highs")])
def test_labels_are_the_bits_of_a_solve(make, solver, tmp_path):
    layer = dg.DecisionLayer(make(), solver=solver)
    need = np.linspace(0.2, 1.4, N)

    def fresh() -> dg.Dataset:
        return dg.Dataset(np.ones((N, 1)), {"cost": COSTS}, {"need": need})

    data = fresh()
    assert dg.label(data, layer, tmp_path, chunk=8) == N
    for labelled in (data, fresh()):
        dg.label(labelled, layer, tmp_path)
        part = labelled.take([3, 1, 20])
        for some, index in ((labelled, np.arange(N)), (part, [3, 1, 20])):
            found, solved = some.optimal(layer)
            expected = layer.solve(some.parameters)
            assert solved == 0 and (found.status == 0).all() and len(found.objective) == len(index)
            np.testing.assert_allclose(found.x["x"], expected.x["x"], atol=1e-12)
            np.testing.assert_allclose(found.objective, expected.objective, atol=1e-12)
            assert found.duals.keys() == expected.duals.keys()
            for name, dual in expected.duals.items():
                np.testing.assert_allclose(found.duals[name], dual, atol=1e-10)
            np.testing.assert_array_equal(found.raw.active, expected.raw.active)
            np.testing.assert_array_equal(found.stats["kinks"], expected.stats["kinks"])


def test_training_and_judging_solve_no_label_again():
    data = dataset()
    assert dg.label(data, LAYER) == N == solved_since()
    train, test = data.split(0.7)
    options = {"selection": None, "epochs": 2, "progress": False}
    result = dg.fit(dg.Linear(), LAYER, train, "spo+", **options)
    assert solved_since() == result.solver_calls == 2 * len(train)  # each epoch asks once for each sample
    dg.evaluate(result.predictor, LAYER, test)
    assert solved_since() == len(test)  # for its predictions
    other = dg.fit(dg.Linear(), LAYER, dataset().take(np.arange(16)), "spo+", **options)
    assert other.solver_calls == 2 * 16 + 16  # without labels they are solved


def test_a_store_is_found_by_content(tmp_path):
    assert dg.label(dataset(), LAYER, tmp_path, chunk=10) == N == solved_since()
    again = dg.DecisionLayer(selection_layer(4, 1).model, solver=dg.Oracle(cheapest))
    assert dg.label(dataset(), again, tmp_path) == 0 == solved_since()  # other objects, the same content
    more = dataset(np.concatenate([COSTS[::-1], COSTS[:5] + 1.0]))  # another order, five new rows
    assert dg.label(more, again, tmp_path) == 5 == solved_since()
    decisions = more.optimal(again)[0].x["x"]
    np.testing.assert_array_equal(decisions, np.eye(4)[more.targets["cost"].argmin(1)])
    assert solved_since() == 0
    other = dg.DecisionLayer(selection_layer(4, 2).model)  # another model
    assert dg.label(dataset(), other, tmp_path) == N
    limited = dg.DecisionLayer(selection_layer(4, 2).model, solver=dg.solvers.HiGHS(mip_gap=0.1))
    assert dg.label(dataset(), limited, tmp_path) == N  # another setting of the solver
    assert len(list(tmp_path.iterdir())) == 3


def test_labels_in_memory_are_stored_once_there_is_a_store(tmp_path):
    data = dataset(np.concatenate([COSTS, COSTS[:3]]))  # three samples twice
    assert dg.label(data, LAYER) == N + 3
    solved_since()
    for _ in range(2):
        assert dg.label(data, LAYER, tmp_path) == 0
    assert len(list(tmp_path.glob("*/*.npz"))) == 1
    fresh = dataset()
    assert dg.label(fresh, LAYER, tmp_path) == 0 == solved_since()
    np.testing.assert_array_equal(fresh.optimal(LAYER)[0].x["x"], np.eye(4)[COSTS.argmin(1)])


def test_changed_parameters_are_solved_again():
    data = dataset(COSTS.copy())
    dg.label(data, LAYER)
    data.targets["cost"][2] = [5.0, 4.0, 3.0, -9.0]
    assert data.optimal(LAYER)[0].x["x"][2].argmax() == 3
    assert dg.label(data, LAYER) == 1


def test_an_interrupted_run_goes_on(tmp_path):
    STOP_AFTER[0] = 15
    with pytest.raises(KeyboardInterrupt):
        dg.label(dataset(), LAYER, tmp_path, chunk=5)
    assert solved_since() == 15
    STOP_AFTER[0] = 10**9
    assert dg.label(dataset(), LAYER, tmp_path, chunk=5) == N - 15 == solved_since()


def test_a_killed_run_goes_on(tmp_path):
    script = f"""
import time, numpy as np, decigrad as dg
from decigrad.problems import selection_layer
def slow(costs):
    time.sleep(0.2)
    return np.eye(4)[costs.argmin(1)]
costs = np.random.default_rng(0).normal(size=({N}, 4))
layer = dg.DecisionLayer(selection_layer(4, 1).model, solver=dg.Oracle(slow))
print(dg.label(dg.Dataset(np.ones(({N}, 1)), {{"cost": costs}}), layer, "store", chunk=2), flush=True)
"""
    (tmp_path / "run.py").write_text(script)
    command = [sys.executable, "run.py"]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE)
    while not list(tmp_path.glob("store/*/*.npz")) and run.poll() is None:
        time.sleep(0.02)
    run.kill()
    run.communicate()
    kept = 2 * len(list(tmp_path.glob("store/*/*.npz")))
    assert 2 <= kept < N
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert int(done.stdout) == N - kept, done.stderr


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_chunk_is_solved_again(damage, tmp_path, caplog):
    dg.label(dataset(), LAYER, tmp_path, chunk=6)
    victim = sorted(tmp_path.glob("*/*.npz"), key=lambda path: path.stat().st_size)[-1]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes({"flip": bytes(content), "cut": bytes(content[:50]), "empty": b""}[damage])
    (victim.parent / "stray.part").write_bytes(b"left by a run that was killed")
    solved_since()
    assert dg.label(dataset(), LAYER, tmp_path) == 6 == solved_since()
    assert "is damaged; its samples are solved again" in caplog.text
    assert dg.label(dataset(), LAYER, tmp_path) == 0


def test_a_full_disk_is_told_once_and_nothing_is_lost(tmp_path, caplog, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    data = dataset()
    assert dg.label(data, LAYER, tmp_path, chunk=4) == N
    assert caplog.text.count("labels are not stored from here on: [Errno 28] No space left") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # no half-written file stays
    assert data.optimal(LAYER)[1] == 0 and solved_since() == N


def test_a_folder_that_cannot_be_made_is_told(tmp_path, caplog):
    (tmp_path / "store").write_text("a file")
    assert dg.label(dataset(), LAYER, tmp_path / "store") == N
    assert "labels are not stored" in caplog.text


def infeasible_at(rows: list[int]) -> dg.Dataset:
    need = np.ones(N)
    need[rows] = 9.0  # four variables of at most 0.6
    return dg.Dataset(np.ones((N, 1)), {"cost": COSTS}, {"need": need})


def test_samples_that_fail_are_named_and_never_stored(tmp_path):
    strict = dg.DecisionLayer(quadratic())
    with pytest.raises(dg.InfeasibleError, match="enough") as caught:
        dg.label(infeasible_at([9, 13]), strict, tmp_path, chunk=5)
    assert "sample 9 of the data" in caught.value.__notes__[0]
    lenient = dg.DecisionLayer(quadratic(), throw=False)
    data = infeasible_at([9, 13])
    assert dg.label(data, lenient, tmp_path, chunk=5) == N - 9  # what was solved before the first is there
    found, solved = data.optimal(lenient)
    assert solved == 0 and found.failed.tolist() == [9, 13]
    assert dg.label(infeasible_at([9, 13]), lenient, tmp_path) == 2  # tried again
    with pytest.raises(dg.InfeasibleError):
        data.optimal(lenient, throw=True)


def test_workers_change_nothing_but_time(tmp_path):
    layer = dg.DecisionLayer(knapsack())
    data = dg.Dataset(np.ones((N, 1)), {"cost": COSTS}, {"need": np.ones(N)})
    alone = data.take(np.arange(N))
    dg.label(data, layer, tmp_path, executor="threads", workers=3, chunk=4)
    dg.label(alone, layer)
    np.testing.assert_array_equal(data.optimal(layer)[0].raw.x, alone.optimal(layer)[0].raw.x)
    assert dg.label(alone.take(np.arange(N)), layer, tmp_path) == 0  # one key, however many workers
    with pytest.raises(dg.ModelError, match="workers=2 needs an executor: 'threads', 'processes', 'ray'"):
        dg.label(infeasible_at([]), layer, workers=2)


def test_keys_of_any_bytes_survive_the_store(tmp_path: Path):
    from decigrad.labels import Chunk

    solved = LAYER.solve({"cost": COSTS[:2]})
    keys = np.array([b"\0" * 32, b"\1" * 31 + b"\0"], dtype=object)
    store = Store(tmp_path / "a")
    store.write(Chunk(keys, solved.raw, solved.stats["handed_on"]))
    assert [chunk.keys.tolist() for chunk in store.read()] == [keys.tolist()]
