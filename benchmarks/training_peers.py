"""Training with the peers: PyEPO without a licence, qpth, and discopt's own loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.training_own import PROBLEMS, Array, Draw

_now: dict[str, Any] = {}


def begin(name: str, draw: Draw) -> Array | None:
    """Build model, labels, loader and network; optimal values of the training samples, if solved."""
    import torch

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64 if name == "battery" else torch.float32)
    network = torch.nn.Linear(draw.x.shape[-1], 1 if name == "energy" else draw.c.shape[-1])
    start = draw.start or (np.zeros(network.weight.shape), np.zeros(network.bias.shape))
    step, loader, values = _battery(draw) if name == "battery" else _pyepo(name, draw)
    _now.update(network=network, start=start, step=step, loader=loader, rate=PROBLEMS[name].rate)
    restart(0)
    return values


def restart(seed: int) -> None:
    """Back to the first weights; the samples come in the order of this seed from now on."""
    import torch

    torch.manual_seed(seed)
    network, step, loader = _now["network"], _now["step"], _now["loader"]
    weight, bias = _now["start"]
    with torch.no_grad():
        network.weight.copy_(torch.tensor(weight))
        network.bias.copy_(torch.tensor(bias))
    adam = torch.optim.Adam(network.parameters(), lr=_now["rate"])

    def epochs() -> Iterator[float]:
        while True:
            began = time.perf_counter()
            for batch in loader:
                adam.zero_grad()
                step(network, batch).backward()
                adam.step()
            yield time.perf_counter() - began

    _now["epochs"] = epochs()


def epochs(count: int) -> list[float]:
    """Seconds of the next epochs."""
    return [next(_now["epochs"]) for _ in range(count)]


def trained(seed: int, count: int) -> tuple[Array, Array]:
    """Weights after so many epochs in the order of this seed."""
    restart(seed)
    epochs(count)
    network = _now["network"]
    return network.weight.detach().numpy().astype(float), network.bias.detach().numpy().astype(float)


def _pyepo(name: str, draw: Draw) -> tuple[Callable[[Any, Any], Any], Any, Array]:
    import pyepo
    from torch.utils.data import DataLoader

    model = _pyepo_model(name, draw)
    data = pyepo.data.dataset.optDataset(model, draw.x, draw.c)
    loss = pyepo.func.SPOPlus(model, processes=1)

    def step(network: Any, batch: Any) -> Any:
        features, cost, decision, value = batch
        return loss(network(features).reshape(cost.shape), cost, decision, value)

    return step, DataLoader(data, batch_size=32, shuffle=True), np.asarray(data.objs, float).reshape(-1)


def _pyepo_model(name: str, draw: Draw) -> Any:
    if name == "grid":
        from pyepo.model.ort import shortestPathModel

        return shortestPathModel((5, 5), solver="glop")
    if name == "tour":
        from pyepo.model.omo import tspGGModel

        return tspGGModel(20, solver="appsi_highs")
    from pyepo.model.ort import knapsackModel

    return knapsackModel(draw.model["weights"], draw.model["capacity"], solver="scip")


def _battery(draw: Draw) -> tuple[Callable[[Any, Any], Any], Any, None]:
    """The battery's QP in qpth, as Donti, Amos and Kolter (2017) trained it: its objective is the loss."""
    import torch
    from qpth.qp import QPFunction
    from torch.utils.data import DataLoader, TensorDataset

    spec, hours = draw.model, draw.c.shape[-1]
    eye = np.eye(hours)
    health, flexible, half = spec["health"], spec["flexibility"], spec["capacity"] / 2
    P = torch.tensor(np.diag(np.repeat([2 * health, 2 * health, 2 * flexible], hours)))
    before = np.eye(hours, k=-1)
    A = torch.tensor(np.hstack([-spec["efficiency"] * eye, eye, eye - before]))
    b = torch.tensor(half * np.eye(hours)[0])
    limits = np.repeat([spec["charge_limit"], spec["discharge_limit"], spec["capacity"]], hours)
    G = torch.tensor(np.vstack([np.eye(3 * hours), -np.eye(3 * hours)]))
    h = torch.tensor(np.concatenate([limits, np.zeros(3 * hours)]))
    decide = QPFunction(verbose=-1, check_Q_spd=False)
    constant = torch.full((hours,), -2 * flexible * half)

    def step(network: Any, batch: Any) -> Any:
        features, log_price = batch
        predicted, true = (
            torch.cat([p, -p, constant.expand_as(p)], 1) for p in (network(features).exp(), log_price.exp())
        )
        x = decide(P, predicted, G, h, A, b)
        return (0.5 * (x * (x @ P)).sum(1) + (true * x).sum(1)).mean()

    data = TensorDataset(torch.tensor(draw.x), torch.tensor(draw.c))
    return step, DataLoader(data, batch_size=32, shuffle=True), None


# ------------------------------------------------------------------------------------------------ tutorial


def tutorial(first: bool) -> float:
    """Seconds of one differentiated solve of the tutorial, by discopt as the tutorial calls it."""
    import os

    os.environ["JAX_ENABLE_X64"] = "1"
    import discopt.modeling as dm

    try:
        from discopt._jax.differentiable import differentiable_solve_l3
    except ModuleNotFoundError:  # its name in other versions
        from discopt._relax.differentiable import differentiable_solve_l3

    if first:
        m = dm.Model("allocation")
        x = m.continuous("x", shape=(3,), lb=0.0, ub=1.0)
        c = m.parameter("cost", value=np.ones(3))
        m.minimize(dm.sum(c * x) + dm.sum(x * x))
        m.subject_to(dm.sum(x) == 1.0)
        _now.update(model=m, cost=c, rng=np.random.default_rng(0))
        differentiable_solve_l3(m).sensitivity_matrix()
    _now["cost"].value = _now["rng"].normal(1.0, 0.5, 3)
    began = time.perf_counter()
    differentiable_solve_l3(_now["model"]).sensitivity_matrix()
    return time.perf_counter() - began
