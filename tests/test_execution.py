"""Workers: results, order and bits of a loop, whoever solves, and whatever becomes of those who do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import jax
import numpy as np
import pytest

import decigrad as dg
from decigrad import batching, native
from decigrad.errors import NonConvexError
from decigrad.execution import Pool
from decigrad.problems import selection_layer, selection_samples
from decigrad.workers import backend

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests
HERE = os.getpid()


@pytest.fixture(scope="module")
def processes() -> Iterator[Pool]:
    with Pool("processes", 2) as pool:
        yield pool


class Inline(Executor):
    """An executor of a user's: it does everything at once, and what it gets and gives are bytes."""

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **named))
        return future


def model(name: str) -> dg.DecisionLayer:
    """A quadratic program with a known parameter, solved in one of two ways, or a knapsack with one."""
    m, whole = dg.Model(name), name == "knapsack"
    x = m.binary("x", shape=4) if whole else m.continuous("x", shape=4, lb=0.0, ub=0.6)
    c, need = m.parameter("cost", shape=4), m.parameter("need", known=True)
    curvature = 0.0 if whole else 2 * dg.sum(x * x)
    m.minimize(dg.sum(c * x) + curvature)
    m.subject_to(np.arange(1.0, 5.0) @ x >= need, name="enough")
    return dg.DecisionLayer(m, solver={"quadratic": "daqp", "knapsack": "highs"}.get(name, "active-set"))


def samples(count: int = 23) -> dg.Dataset:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(count, 2))
    cost = features @ rng.normal(size=(2, 4)) + 0.1 * rng.normal(size=(count, 4))
    return dg.Dataset(features, {"cost": cost}, {"need": rng.uniform(1.0, 3.0, count)})


def same(one: Any, other: Any) -> None:
    """Equal to the bit, with their types."""
    left, right = jax.tree_util.tree_leaves(one), jax.tree_util.tree_leaves(other)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert type(a) is type(b) and np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def killer(flag: Path) -> dg.Oracle:
    """The cheapest item; the first worker to be asked while there is a flag takes it and dies."""

    def cheapest(costs: np.ndarray) -> np.ndarray:
        if os.getpid() != HERE and flag.exists():
            flag.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.eye(costs.shape[1])[costs.argmin(1)]

    return dg.Oracle(cheapest)


def cheapest_data(count: int) -> dg.Dataset:
    features, costs, _ = selection_samples(count, 0, items=6, features=3)
    return dg.Dataset(features, {"cost": costs})


# ------------------------------------------------------------------------------------------------ labels


@pytest.mark.parametrize("kind", ["threads", "given", "processes"])
@pytest.mark.parametrize("name", ["quadratic", "knapsack"])
def test_labels_are_those_of_a_loop(name: str, kind: str, processes: Pool, tmp_path: Path) -> None:
    layer, alone, data = model(name), samples(), samples()
    dg.label(alone, layer, chunk=4)
    executor, workers = {"threads": ("threads", 3), "given": (Inline(), 2), "processes": (processes, None)}[
        kind
    ]
    assert dg.label(data, layer, tmp_path, chunk=4, executor=executor, workers=workers) == 23
    same(data.optimal(layer)[0].raw, alone.optimal(layer)[0].raw)
    assert dg.label(samples(), layer, tmp_path) == 0  # one store, whoever solved


def test_a_worker_that_is_killed_while_it_labels_is_replaced(processes: Pool, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    layer, data = dg.DecisionLayer(selection_layer(6, 1).model, solver=killer(flag)), cheapest_data(20)
    flag.touch()
    assert dg.label(data, layer, chunk=3, executor=processes) == 20
    assert not flag.exists()
    best = np.eye(6)[data.targets["cost"].argmin(1)]
    np.testing.assert_array_equal(data.optimal(layer)[0].x["x"], best)


def test_a_sample_that_fails_is_named_and_what_came_before_is_kept(tmp_path: Path) -> None:
    layer, data = model("quadratic"), samples()
    data.known["need"][13] = 99.0
    with pytest.raises(dg.InfeasibleError, match="enough") as found:
        dg.label(data, layer, tmp_path, chunk=4, executor="threads", workers=2)
    assert "this is sample 13 of the data" in found.value.__notes__
    data.known["need"][13] = 1.0
    assert dg.label(data, layer, tmp_path, chunk=4) == 23 - 12 - 3  # but for whole chunks and its neighbours


# ---------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        pytest.param("quadratic", "regret", marks=pytest.mark.slow),
        ("knapsack", "spo+"),
        ("warm starts", "regret"),
    ],
)
def test_a_fit_is_the_local_one(name: str, loss: str, processes: Pool) -> None:
    if name == "warm starts" and native.missing() is not None:
        pytest.skip("the compiled core is not installed")
    layer, options = model(name), {"selection": None, "epochs": 2, "batch_size": 8, "progress": False}
    data = samples()
    data.known["need"][13] = 99.0  # fails in every epoch
    lenient = dg.DecisionLayer(layer.model, solver=layer.asked, throw=False)
    alone = dg.fit(dg.Linear(), lenient, data, loss, **options)
    assert alone.failures == {13: "PRIMAL_INFEASIBLE"}
    for executor in (processes, ThreadPoolExecutor(2)):
        found = dg.fit(dg.Linear(), lenient, data.take(np.arange(23)), loss, executor=executor, **options)
        same(found.predictor, alone.predictor)
        assert found.history == alone.history and found.failures == alone.failures
        assert found.solver_calls == alone.solver_calls


def test_a_worker_that_is_killed_while_it_trains_is_replaced(processes: Pool, tmp_path: Path) -> None:
    flag, data = tmp_path / "flag", cheapest_data(20)
    layer = dg.DecisionLayer(selection_layer(6, 1).model, solver=killer(flag))
    options = {"selection": None, "epochs": 3, "progress": False}

    def kill(event: Any) -> None:
        if event.epoch == 1:
            flag.touch()

    found = dg.fit(dg.Linear(), layer, data, "spo+", executor=processes, callbacks=[kill], **options)
    assert not flag.exists()
    same(found.predictor, dg.fit(dg.Linear(), layer, data, "spo+", **options).predictor)


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_comparison_is_the_local_one(killed: bool, processes: Pool, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    layer = dg.DecisionLayer(selection_layer(6, 1).model, solver=killer(flag))
    data = cheapest_data(40)
    train, test = data.split(0.5)
    methods = {"two-stage": "two-stage", "spo+": "spo+"}
    options = {"seeds": [3, 1], "epochs": 2, "selection": None, "progress": False}
    alone = dg.compare(layer, train.take(np.arange(20)), test.take(np.arange(20)), methods, **options)
    if killed:
        flag.touch()
    found = dg.compare(
        layer, train, test, methods, executor=processes, checkpoint=tmp_path / "kept", **options
    )
    assert not flag.exists()
    assert found.data.methods == alone.data.methods and found.data.seeds == alone.data.seeds == [3, 1]
    for method in methods:
        for a, b in zip(found.results[method], alone.results[method], strict=True):
            same(a.predictor, b.predictor)
            assert a.solver_calls == b.solver_calls and a.history == b.history
        for a, b in zip(found.data.runs[method], alone.data.runs[method], strict=True):
            np.testing.assert_array_equal(a.evaluation.regret, b.evaluation.regret)
    kept = sorted(path.name for path in (tmp_path / "kept").glob("*.ckpt"))
    assert kept == ["spo+-1.ckpt", "spo+-3.ckpt", "two-stage-1.ckpt", "two-stage-3.ckpt"]


def test_a_draw_by_seed_and_an_executor_of_the_users() -> None:
    layer = selection_layer(6, 1)

    def draw(seed: int) -> tuple[dg.Dataset, dg.Dataset]:
        features, costs, _ = selection_samples(30, seed, items=6, features=3)
        data = dg.Dataset(features, {"cost": costs})
        return data.take(np.arange(20)), data.take(np.arange(20, 30))

    for executor, workers in ((None, None), (Inline(), 2), ("threads", 2)):
        found = dg.compare(layer, draw, methods=["two-stage"], seeds=2, executor=executor, workers=workers)
        regret = [run.evaluation.regret for run in found.data.runs["two-stage"]]
        if executor is None:
            expected = regret
        np.testing.assert_array_equal(regret, expected)


# ------------------------------------------------------------------------------------------------ errors


class Odd(RuntimeError):
    """An exception that does not come out of a pickle again."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


def fails(shared: str, item: int) -> Any:
    if item == 2:
        if shared == "odd":
            raise Odd(1, 2)
        if shared == "convexity":
            raise NonConvexError("bent", -1.5, np.arange(2.0))
        if shared == "dead":
            os.kill(os.getpid(), signal.SIGKILL)
        return 1 / 0
    return item


@pytest.mark.parametrize(
    ("shared", "kind", "message"),
    [
        ("", ZeroDivisionError, "division by zero"),
        ("odd", RuntimeError, "Odd: 1 and 2"),
        ("convexity", NonConvexError, "bent"),
    ],
)
@pytest.mark.parametrize("where", ["given", "processes"])
def test_an_exception_has_its_job_and_its_traceback(
    shared: str, kind: Any, message: str, where: str, processes: Pool
) -> None:
    pool = processes if where == "processes" else Pool(Inline(), 2)
    done = []
    with pytest.raises(kind, match=message) as found:
        for result in pool.map(fails, shared, ((f"number {i}", i) for i in range(5))):
            done.append(result)
    assert done == [0, 1]
    (note,) = found.value.__notes__
    assert "the job 'number 2' in a worker" in note and "in fails" in note and "Traceback" in note
    if shared == "convexity":
        assert found.value.eigenvalue == -1.5


@pytest.mark.slow
def test_a_job_that_ends_its_workers_is_found_out(processes: Pool) -> None:
    from concurrent.futures import BrokenExecutor

    with pytest.raises(BrokenExecutor) as found:
        list(processes.map(fails, "dead", [("number 2", 2)]))
    assert "number 2: the worker died 4 times" in found.value.__notes__[0]
    assert list(processes.map(fails, "", [("number 1", 1)])) == [1]  # the pool goes on


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "process"}, "executor must be None, 'threads', 'processes', 'ray'.*got 'process'"),
        ({"executor": "threads", "workers": 0}, "at least 1, got 0"),
        ({"workers": 2}, "workers=2 needs an executor"),
        ({"executor": Pool("threads", 2), "workers": 3}, "the pool that is given has 2"),
    ],
)
def test_what_is_no_executor_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(dg.ModelError, match=message):
        dg.label(samples(), model("quadratic"), **options)


def test_a_device_solver_is_refused_where_it_solves_in_compiled_steps() -> None:
    layer = dg.DecisionLayer(model("quadratic").model, solver="interior-point")
    with pytest.raises(dg.ModelError, match="'interior-point' decides within compiled steps"):
        dg.fit(dg.Linear(), layer, samples(), executor="threads")


# ---------------------------------------------------------------------------------------- order and load


def test_few_jobs_are_ahead_of_the_caller_and_all_workers_work() -> None:
    taken, seen, together = [], set(), threading.Barrier(3)

    def items() -> Iterator[tuple[str, int]]:
        for i in range(30):
            taken.append(i)
            yield str(i), i

    def work(shared: None, item: int) -> int:
        if item < 3:
            together.wait(60)  # passes when three are at work
        seen.add(threading.get_ident())
        time.sleep(0.002 * (item % 3))  # ends out of order
        return item * item

    with Pool("threads", 3) as pool:
        for i, result in enumerate(pool.map(work, None, items())):
            assert result == i * i
            assert len(taken) - i <= 2 * 3
    assert i == 29 and len(seen) == 3


def test_long_jobs_do_not_wait_for_the_first() -> None:
    gate = threading.Event()

    def work(shared: None, item: int) -> int:
        if item == 0:
            assert gate.wait(60)
        if item == 9:
            gate.set()  # the first ends after all others
        return item

    with Pool("threads", 2) as pool:
        assert list(pool.map(work, None, ((str(i), i) for i in range(10)), bounded=False)) == list(range(10))


def test_workers_keep_to_the_kinds_that_they_have_done() -> None:
    where: dict[str, set[int]] = {"a": set(), "b": set()}
    both = threading.Barrier(2)

    def work(shared: None, item: tuple[str, int]) -> None:
        where[item[0]].add(threading.get_ident())
        both.wait(60)  # one of each kind at a time

    items = ((f"{kind}{i}", (kind, i)) for i in range(8) for kind in "ab")
    with Pool("threads", 2) as pool:
        list(pool.map(work, None, items, bounded=False, kind=lambda item: item[0]))
    assert len(where["a"]) == len(where["b"]) == 1 and where["a"] != where["b"]


def test_what_is_shared_travels_once() -> None:
    sent = []

    class Counting(Inline):
        def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
            sent.append(sum(len(a) for a in arguments if isinstance(a, bytes)))
            return super().submit(function, *arguments, **named)

    def column(shared: np.ndarray, item: int) -> float:
        return float(shared[item])

    shared = np.arange(1e5)
    with Pool(Counting(), 2) as pool:
        assert list(pool.map(column, shared, ((str(i), i) for i in range(20)))) == list(range(20))
        assert sum(sent) < 1.1 * shared.nbytes
        from decigrad import workers

        workers._HELD.clear()  # a worker that was replaced by its owner
        assert list(pool.map(column, shared, [("5", 5)])) == [5.0]


def test_a_process_takes_over_the_settings_of_the_caller(processes: Pool) -> None:
    def settings(shared: None, item: int) -> Any:
        flag = os.environ["XLA_FLAGS"].split()[-1]
        return jax.config.jax_enable_x64, os.environ["OMP_NUM_THREADS"], batching.cores(), flag

    for wide in (False, True):
        with jax.enable_x64(wide):
            (found,) = processes.map(settings, None, [("", 0)])
        assert found == (wide, "1", 1, "--xla_cpu_multi_thread_eigen=false")
    assert backend(None) is None


# ----------------------------------------------------------------------------- processes that end, clusters

SCRIPT = """
import os, pathlib, sys, time
import numpy as np
import decigrad as dg
from decigrad.problems import selection_layer

def slow(costs):
    (pathlib.Path(sys.argv[1]) / str(os.getpid())).touch()
    time.sleep(120)

layer = dg.DecisionLayer(selection_layer(4, 1).model, solver=dg.Oracle(slow))
data = dg.Dataset(np.ones((8, 1)), {"cost": np.ones((8, 4))})
dg.label(data, layer, chunk=2, executor="processes", workers=2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_caller(end: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as caller:
        waited(lambda: len(list(tmp_path.iterdir())) == 2)
        workers = [int(path.name) for path in tmp_path.iterdir()]
        if end == signal.SIGINT:
            os.killpg(caller.pid, end)  # as a terminal does: workers get it too
        else:
            caller.send_signal(end)
        _, told = caller.communicate(timeout=60)
    assert caller.returncode != 0
    if end == signal.SIGINT:
        assert told.rstrip().endswith("KeyboardInterrupt") and told.count("Traceback") == 1
    waited(lambda: not any(map(alive, workers)))


def waited(condition: Any) -> None:
    until = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray of this machine, made by the user."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_on_ray_killed_workers_change_nothing(cluster: Any, tmp_path: Path) -> None:
    flag, data = tmp_path / "flag", cheapest_data(40)
    layer = dg.DecisionLayer(selection_layer(6, 1).model, solver=killer(flag))
    train, test = data.split(0.5)
    options = {"epochs": 2, "selection": None, "progress": False}

    def kill(event: Any) -> None:
        if event.epoch == 1:
            flag.touch()

    alone = dg.fit(dg.Linear(), layer, train, "spo+", **options)
    compared = dg.compare(layer, train, test, ["spo+"], seeds=2, baseline="spo+", **options)
    with Pool("ray", 2) as pool:
        flag.touch()
        fresh = train.take(np.arange(20))
        assert dg.label(fresh, layer, chunk=3, executor=pool) == 20
        same(fresh.optimal(layer)[0].raw, train.optimal(layer)[0].raw)
        assert not flag.exists()
        found = dg.fit(dg.Linear(), layer, train, "spo+", executor=pool, callbacks=[kill], **options)
        assert not flag.exists()
        same(found.predictor, alone.predictor)
        flag.touch()
        again = dg.compare(layer, train, test, ["spo+"], seeds=2, baseline="spo+", executor=pool, **options)
        assert not flag.exists()
        for a, b in zip(again.results["spo+"], compared.results["spo+"], strict=True):
            same(a.predictor, b.predictor)
        with pytest.raises(ZeroDivisionError) as error:
            list(pool.map(fails, "", [("number 2", 2)]))
        assert "in fails" in error.value.__notes__[0]
    assert cluster.is_initialized()  # it is the user's
