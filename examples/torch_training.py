"""A PyTorch training loop through a solver: shortest paths, SPO+ beside its twin on the mean squared error.

Run it with `python examples/torch_training.py`; it needs PyTorch (`pip install 'decigrad[torch]'`).
"""

from __future__ import annotations

import torch

import decigrad as dg
import decigrad.torch as dt

EPOCHS, BATCH, RATE = 30, 32, 0.03


def trained(
    loss: str, layer: dg.DecisionLayer, features: torch.Tensor, costs: torch.Tensor
) -> torch.nn.Module:
    """A linear network that is trained by a loss of decigrad, by name."""
    torch.manual_seed(0)
    net = torch.nn.Linear(features.shape[1], costs.shape[1], dtype=torch.float64)
    criterion = dt.Loss(loss, layer)
    labels = criterion.labels(costs)  # the best paths under the true costs, solved once
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(features)).split(BATCH):
            optimizer.zero_grad()
            criterion(net(features[batch]), labels=labels[batch]).backward()
            optimizer.step()
    return net


def regret(
    net: torch.nn.Module, layer: dg.DecisionLayer, features: torch.Tensor, costs: torch.Tensor
) -> float:
    """Excess cost of the paths that the predictions lead to, as a share of the least cost."""
    with torch.no_grad():
        excess = dt.Loss(dg.losses.Regret(), layer, reduction="sum")(net(features), costs)
    least = layer.solve({"cost": costs.numpy()}).objective.sum()
    return float(excess) / float(least)


def main() -> dict[str, float]:
    """Train both and return their regrets on unseen samples."""
    layer = dg.problems.shortest_path_layer(4, 4)
    drawn = dg.problems.shortest_path_samples(500, seed=1, rows=4, cols=4, degree=8, noise=0.5)
    features, costs = (torch.tensor(array) for array in drawn[:2])
    found = {}
    for loss in ("mse", "spo+"):
        net = trained(loss, layer, features[:100], costs[:100])
        found[loss] = regret(net, layer, features[100:], costs[100:])
        print(f"{loss:5} regret {found[loss]:.1%}")
    return found


if __name__ == "__main__":
    main()
