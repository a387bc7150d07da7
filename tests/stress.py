"""Two threads that solve and train at the same time: `python stress.py SOLVES STEPS [KIND ...]`.

Batches are solved by host solvers through a callback inside jit, with and without their derivative, by the
interior point and an oracle inside jit, and outside of it. One thread solves first and then trains, the other
the other way round. Each answer and each trained predictor must be the one that is found alone.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import decigrad as dg
from decigrad import problems
from decigrad.compiled import float64

BATCH = 8
SHARES = {
    "oracle in jit": 0.4, "DAQP in jit": 0.3, "DAQP with its derivative in jit": 0.1, "HiGHS in jit": 0.1,
    "interior point in jit": 0.07, "DAQP outside": 0.02, "oracle outside": 0.01,
}  # fmt: skip


def layer(solver: str, curvature: float = 1.0) -> dg.DecisionLayer:
    """Shares of three, at predicted costs."""
    m = dg.Model("shares")
    x = m.continuous("x", shape=3, lb=0.0, ub=0.7)
    cost = m.parameter("cost", shape=3) @ x
    m.minimize(cost + curvature * dg.sum(x * x) if curvature else cost)
    m.subject_to(dg.sum(x) == 1.0)
    return dg.DecisionLayer(m, solver=solver)


def calls(kinds: list[str]) -> dict[str, Callable[[], Any]]:
    """A batch solved, by kind of solver."""
    rng = np.random.default_rng(0)
    costs, edges = rng.normal(size=(BATCH, 3)), rng.uniform(size=(BATCH, 12))
    paths, daqp = problems.shortest_path_layer(3, 3), layer("daqp")

    def jitted(layer: dg.DecisionLayer, values: np.ndarray) -> Callable[[], Any]:
        function = jax.jit(lambda c: layer({"cost": c})["x"])
        return lambda: function(values)

    slope = jax.jit(jax.grad(lambda c: (daqp({"cost": c})["x"] ** 2).sum()))
    known = {
        "oracle in jit": jitted(paths, edges),
        "DAQP in jit": jitted(daqp, costs),
        "DAQP with its derivative in jit": lambda: slope(costs),
        "HiGHS in jit": jitted(layer("highs", 0.0), costs),
        "interior point in jit": jitted(layer("interior-point"), costs),
        "DAQP outside": lambda: daqp.solve({"cost": costs}).x["x"],
        "oracle outside": lambda: paths.solve({"cost": edges}).x["x"],
    }
    return {name: known[name] for name in kinds}


def trained(host: bool, steps: int) -> np.ndarray:
    """The weights after about so many steps of four samples, by a host solver or an oracle on the device."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 2))
    size = 3 if host else 12
    data = dg.Dataset(features, {"cost": 2.0 + 0.3 * features @ rng.normal(size=(2, size))})
    chosen, loss = (
        (layer("daqp"), dg.losses.Regret()) if host else (problems.shortest_path_layer(3, 3), "spo+")
    )
    epochs = max(1, steps // 10)  # of ten steps
    how = {"selection": None, "epochs": epochs, "batch_size": 4, "progress": False}
    return np.asarray(dg.fit(dg.Linear(), chosen, data, loss, **how).predictor.weight)


def main(solves: int, steps: int, kinds: list[str]) -> None:
    """Run, and print how many batches were solved and how many steps made."""
    with float64():
        ask = calls(kinds or list(SHARES))
        expected = {name: np.asarray(call()) for name, call in ask.items()}
    whole = sum(SHARES[name] for name in ask)
    alone = {host: trained(host, steps // 2) for host in (True, False)}
    wrong: list[str] = []
    done = [0]
    lock = threading.Lock()

    def solve() -> None:
        with float64():
            for name, call in ask.items():
                count = -int(-solves * SHARES[name] // (2 * whole))
                for _ in range(count):
                    if not np.array_equal(np.asarray(call()), expected[name]):
                        wrong.append(name)
                with lock:
                    done[0] += count

    def train(host: bool) -> None:
        if not np.array_equal(trained(host, steps // 2), alone[host]):
            wrong.append("training with a solver on the " + ("host" if host else "device"))

    def first() -> None:
        solve()
        train(True)

    def second() -> None:
        train(False)
        solve()

    threads = [threading.Thread(target=target, daemon=True) for target in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, sorted(set(wrong))
    print(done[0], 2 * max(1, steps // 20) * 10)


if __name__ == "__main__":
    faulthandler.enable()
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
