"""What training costs beside predicting and solving: nothing is compiled twice, nothing grows with epochs;
and the samples of a step may be divided among devices.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import decigrad as dg
from decigrad import problems
from decigrad.compiled import device_solve
from decigrad.losses import MSE, NCE, PerturbedFenchelYoung, Regret, SPOPlus
from decigrad.oracles import NodeGridPath

COMPILED: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: COMPILED.append(event) if event.endswith("backend_compile_duration") else None
)


def allocation(solver: str, seed: int = 0, samples: int = 11) -> tuple[dg.DecisionLayer, dg.Dataset]:
    """A share of three, at predicted costs."""
    m = dg.Model("allocation")
    x = m.continuous("x", shape=3, lb=0.0, ub=1.0)
    m.minimize(m.parameter("cost", shape=3) @ x + dg.sum(x * x))
    m.subject_to(dg.sum(x) == 1.0)
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(samples, 2))
    cost = 1.0 + 0.4 * features @ rng.normal(size=(2, 3)) + 0.1 * rng.normal(size=(samples, 3))
    return dg.DecisionLayer(m, solver=solver), dg.Dataset(features, {"cost": cost})


def path(seed: int = 0, samples: int = 11) -> tuple[dg.DecisionLayer, dg.Dataset]:
    """A shortest path, by an oracle on the device."""
    features, cost, _ = problems.shortest_path_samples(samples, seed, rows=3, cols=3)
    return problems.shortest_path_layer(3, 3), dg.Dataset(features, {"cost": cost})


def map_path(seed: int = 0, samples: int = 11) -> tuple[dg.DecisionLayer, dg.Dataset]:
    """The same over the nodes of a map, seen as an image."""
    m = dg.Model("map")
    x = m.continuous("x", shape=9, lb=0.0, ub=1.0)
    m.minimize(m.parameter("cost", shape=9) @ x)
    rng = np.random.default_rng(seed)
    cost = rng.uniform(1.0, 2.0, size=(samples, 9))
    image = np.kron(cost.reshape(-1, 3, 3), np.ones((2, 2)))[..., None]
    return dg.DecisionLayer(m, solver=NodeGridPath(3, 3)), dg.Dataset(image, {"cost": cost})


Case = tuple[Callable[[int], tuple[dg.DecisionLayer, dg.Dataset]], Any, Any, Any]
CASES: dict[str, Case] = {
    "oracle": (path, SPOPlus(), dg.Linear(), None),
    "host, through the decision": (lambda seed: allocation("daqp", seed), Regret(), dg.Linear(), None),
}
MORE: dict[str, Case] = {
    "prediction error": (lambda seed: allocation("daqp", seed), MSE(), dg.MLP((4,)), None),
    "host, surrogate": (lambda seed: allocation("daqp", seed), SPOPlus(), dg.Linear(), None),
    "interior point": (lambda seed: allocation("interior-point", seed), Regret(), dg.Linear(), None),
    "perturbed": (path, PerturbedFenchelYoung(0.5), dg.Linear(), None),
    "ranking": (path, NCE(), dg.Linear(), None),
    "images": (map_path, PerturbedFenchelYoung(0.5), dg.CNN(width=2), None),
    "cross-validation": (path, SPOPlus(), dg.Linear(), dg.CrossValidation(folds=3)),
    "hold-out": (lambda seed: allocation("daqp", seed), Regret(), dg.Linear(), dg.HoldOut(0.3)),
}
ALL = [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_compiled_after_the_first_epoch_or_by_a_second_fit(name):
    """Eleven samples in batches of four: the last one is filled up, not compiled for."""
    problem, loss, predictor, selection = {**CASES, **MORE}[name]
    by_phase: dict[str, list[int]] = {}

    def note(event: Any) -> None:
        by_phase.setdefault(event.phase, []).append(len(COMPILED))

    def fit(seed: int) -> None:
        layer, data = problem(seed)
        how = {"selection": selection, "seed": seed, "epochs": 3, "batch_size": 4, "progress": False}
        dg.fit(predictor, layer, data, loss, callbacks=[note], **how)

    before = len(COMPILED)
    fit(0)
    assert len(COMPILED) > before  # the listener is heard
    for phase, counts in by_phase.items():
        assert len(set(counts)) == 1, f"{phase}: compilations after each epoch {counts}"
    before = len(COMPILED)
    fit(0 if name == "ranking" else 1)  # other data have another number of decisions to rank
    assert len(COMPILED) == before


@pytest.mark.parametrize(
    "name", [pytest.param("oracle", marks=pytest.mark.slow), "host, through the decision"]
)
def test_memory_does_not_grow_with_the_epochs(name):
    problem, loss, predictor, selection = CASES[name]
    layer, data = problem(0)
    arrays, traced = [], []

    def note(event: Any) -> None:
        gc.collect()
        arrays.append(sum(array.nbytes for array in jax.live_arrays()))
        traced.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    how = {"selection": selection, "epochs": 20, "batch_size": 4, "progress": False}
    dg.fit(predictor, layer, data, loss, callbacks=[note], **how)
    tracemalloc.stop()
    assert len(set(arrays[2:])) == 1, f"bytes on the device after each epoch: {arrays}"
    # A history has a few numbers by epoch; what the three steps of an epoch return takes more than that.
    assert traced[-1] - traced[4] < 15 * 1000, f"bytes on the host after each epoch: {traced}"


def test_a_device_solver_is_compiled_for_a_few_sizes_alone():
    layer, _ = path()
    rng = np.random.default_rng(0)
    cost = rng.uniform(size=(300, layer.parameters["cost"].size))
    one_by_one = np.concatenate([layer.solve({"cost": c[None]}).x["x"] for c in cost])
    layer.solve({"cost": cost[:100]})
    for size in (70, 128, 300):
        program, _ = layer.programs({"cost": cost[:size]})
        between = len(COMPILED)  # stating the program is compiled by size
        found = device_solve(layer.form, layer.solver, program)
        assert len(COMPILED) == between
        np.testing.assert_array_equal(found.x, one_by_one[:size])


def test_what_a_batch_shares_is_stated_again_where_it_has_changed():
    m = dg.Model("shares")
    x = m.continuous("x", shape=3, lb=0.0)
    m.minimize(m.parameter("cost", shape=3) @ x + dg.sum(x * x))
    m.subject_to(dg.sum(x) == m.parameter("total"))
    layer = dg.DecisionLayer(m, solver="daqp")
    costs, total = np.random.default_rng(0).normal(size=(4, 3)), np.ones(())
    for expected in (1.0, 1.0, 2.5, 1.0):
        total[...] = expected  # in place: the same array with another value
        found = layer.solve({"cost": costs, "total": total}).x["x"]
        np.testing.assert_allclose(found.sum(1), expected, atol=1e-9)


# ----------------------------------------------------------------------------------------------- devices


def test_devices_are_checked():
    layer, data = path()
    with pytest.raises(dg.ModelError, match="devices must lie between 1 and 1"):
        dg.fit(dg.Linear(), layer, data, SPOPlus(), devices=7)
    with pytest.raises(dg.ModelError, match="a number or a list"):
        dg.fit(dg.Linear(), layer, data, SPOPlus(), devices=["cpu"])


FOUR = """
    import os
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4 --xla_cpu_multi_thread_eigen=false"
    import sys
    sys.path.insert(0, {folder!r})
    import jax, numpy as np, pytest
    import decigrad as dg
    from test_scale import CASES, COMPILED, MORE

    cases = CASES | MORE
    for name in {names!r}:
        problem, loss, predictor, selection = cases[name]
        layer, data = problem(0)
        found = []
        for devices in (None, 4) + (jax.devices()[:2],) * (name == "oracle"):
            noted = set()
            fitted = dg.fit(
                predictor, layer, data, loss, selection=selection, epochs=2, batch_size=4, devices=devices,
                progress=False, callbacks=[lambda event: noted.add((event.phase, len(COMPILED)))],
            )
            assert len(noted) == len(set(phase for phase, _ in noted)), noted
            leaves = [a for a in jax.tree_util.tree_leaves(fitted.predictor) if hasattr(a, "shape")]
            found.append((np.concatenate([np.ravel(a) for a in leaves]), fitted.history))
        for weights, history in found[1:]:
            np.testing.assert_allclose(weights, found[0][0], rtol=0, atol=1e-10)
            np.testing.assert_allclose(history["loss"], found[0][1]["loss"], rtol=0, atol=1e-10)
            assert history["solver_calls"] == found[0][1]["solver_calls"]
    with pytest.raises(dg.ModelError, match="not a multiple of the 4 devices"):
        dg.fit(predictor, layer, data, loss, batch_size=6, devices=4)
    print("agree")
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_several_devices_train_as_one_does():
    """Simulated devices of the CPU: oracles, the interior point, host solvers, estimates with their draws."""
    from pathlib import Path

    names = ["oracle", "host, through the decision", "prediction error", "perturbed", "cross-validation"]
    code = textwrap.dedent(FOUR).format(folder=str(Path(__file__).parent), names=[*names, "interior point"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=880)
    assert done.returncode == 0 and done.stdout.strip() == "agree", done.stderr
