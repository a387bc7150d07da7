"""The pictures of docs/concepts.md: python docs/images/concepts.py"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import decigrad as dg

HERE = Path(__file__).parent
plt.style.use(HERE.parent / "matplotlibrc")
plt.rcParams["svg.hashsalt"] = "concepts"  # the same file from the same picture


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(HERE / name, metadata={"Date": None})
    plt.close(figure)


def vertex() -> None:
    """Why the derivative of a linear program's decision is zero, and what smoothing does."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.3))
    corners = np.array([[0.6, 0.2], [2.6, 0.35], [3.1, 1.7], [1.8, 2.7], [0.3, 1.7]])
    left.fill(*corners.T, color="C0", alpha=0.15, label="feasible decisions")
    left.plot(*np.vstack([corners, corners[:1]]).T, color="C0")
    best = corners[0]
    left.plot(*best, "o", color="C1", markersize=9, label="optimum of all three")
    for degrees in (50, 65, 80):
        step = -0.75 * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
        left.annotate("", best + step, best, arrowprops={"arrowstyle": "->", "color": "#1c2733"})
    left.text(0.72, -0.5, "−ĉ, three predictions", fontsize=9, va="center", color="#1c2733")
    left.set(title="A vertex is the best for a cone of costs", xlim=(-0.4, 3.6), ylim=(-0.75, 3.5))
    left.set(xlabel="decision x₁", ylabel="decision x₂")
    left.legend(loc="upper right")

    m = dg.Model()
    x = m.continuous("x", shape=2, lb=0.0, ub=1.0)
    c = m.parameter("cost", shape=2)
    m.minimize(c @ x)
    m.subject_to(dg.sum(x) == 1.0)
    exact, smooth = dg.DecisionLayer(m), dg.DecisionLayer(m, gradient=dg.Smoothed(0.5))
    predicted = np.linspace(0.0, 2.0, 401)
    costs = {"cost": np.stack([predicted, np.ones_like(predicted)], axis=1)}
    right.plot(predicted, exact(costs)["x"][:, 0], label="exact: slope 0 but for a jump")
    right.plot(predicted, smooth(costs)["x"][:, 0], ls="--", label="Smoothed(0.5): a slope, another decision")
    right.set(
        title="So its decision moves in jumps", xlabel="predicted cost ĉ₁ (ĉ₂ = 1)", ylabel="decision x₁"
    )
    right.set_ylim(-0.05, 1.5)
    right.legend(loc="upper right")
    save(figure, "vertex.svg")


def surrogate() -> None:
    """Regret, SPO+ and the squared error of a choice between two, over the predicted difference of costs."""
    true, predicted = 1.0, np.linspace(-2.0, 3.0, 1001)  # choosing the first costs 1 more
    regret = np.where(predicted < 0, true, 0.0)
    vertices = np.array([1.0, 0.0])  # of x₁; the cost of x is (difference · x₁)
    spo = (vertices[:, None] * (true - 2 * predicted)).max(0)  # 2ĉ·x*(c) and V(c) vanish at x*(c) = 0
    figure, axes = plt.subplots(figsize=(6.4, 3.4))
    axes.plot(predicted, regret, label="regret: flat, with a jump")
    axes.plot(predicted, spo, ls="--", label="SPO+: convex, never below regret")
    axes.plot(predicted, (predicted - true) ** 2, ls=":", label="squared error")
    axes.axvline(true, color="#8a949e", lw=1)
    axes.text(true + 0.05, 1.6, "truth", fontsize=9, color="#1c2733")
    axes.axvspan(0.0, 3.0, color="C2", alpha=0.08)
    axes.text(1.5, 2.6, "the decision is right", fontsize=9, color="#1c2733")
    axes.set(title="Three losses of a choice between two", ylim=(-0.1, 4.0), xlim=(-2, 3))
    axes.set(
        xlabel="predicted difference of the two costs [cost]", ylabel="loss [cost; squared error: cost²]"
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.62, 1.0))
    save(figure, "surrogate.svg")


def accuracy() -> None:
    """A prediction with a larger error and a smaller regret."""
    feature = np.linspace(0.0, 1.0, 1001)
    dear = 0.5 + 2.2 * feature**4  # the cost of an alternative; the other one costs 1
    columns = np.stack([feature, np.ones_like(feature)], axis=1)
    squares = np.linalg.lstsq(columns, dear, rcond=None)[0]

    def regret(line: np.ndarray) -> float:
        chosen = np.where(columns @ line < 1.0, dear, 1.0)
        return float((chosen - np.minimum(dear, 1.0)).mean())

    crossing = (0.5 / 2.2) ** 0.25  # where the two are equally dear
    slope = squares[0]
    focused = np.array([slope, 1.0 - slope * crossing])
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    axes.plot(feature, dear, color="#1c2733", label="true cost of the alternative")
    axes.axhline(1.0, color="#8a949e", lw=1)
    axes.text(0.01, 1.03, "cost of the other one", fontsize=9, color="#1c2733")
    for i, (name, line) in enumerate([("least squares", squares), ("decision-focused", focused)]):
        error = float(((columns @ line - dear) ** 2).mean())
        label = f"{name}: squared error {error:.3f}, regret {regret(line):.3f}"
        axes.plot(feature, columns @ line, color=f"C{i}", ls="--", label=label)
    wrong = np.where(columns @ squares < 1.0, dear, 1.0) > np.minimum(dear, 1.0) + 1e-12
    axes.fill_between(
        feature, 1.0, dear, where=wrong, color="C0", alpha=0.25, label="regret of least squares"
    )
    axes.set(title="The same line, moved: a larger error and better decisions", xlim=(0, 1))
    axes.set(xlabel="feature", ylabel="cost")
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, 0.97))
    save(figure, "accuracy.svg")


if __name__ == "__main__":
    vertex()
    surrogate()
    accuracy()
