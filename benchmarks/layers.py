"""Differentiable layers against qpth: forward and backward over a batch, with the accuracy of both.

    python -m benchmarks.layers [--repeat 7] [--out benchmarks/tables]

Rows (cost differentiated, matrices shared by the batch, float64, one thread):

    a   the tutorial's QP: n = 3, one equality, bounds           batch 128
    b   dense QP: n = 50, 10 equalities, 50 inequalities          batch 128
    d   grid 5×5 shortest path with a small quadratic: n = 40     batch 128

decigrad runs as `fit` runs it: `layer.solve` on the host and the adjoint of the decision's cotangent, to the
gradient in the cost. qpth (Amos and Kolter, 2017) runs forward and backward through its own interior point.
The reference is an exact active-set solution in NumPy at Clarabel's active set (tolerance 1e-12).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

import decigrad as dg  # noqa: E402

Arrays = dict[str, np.ndarray]


def instance(row: str, rng: np.random.Generator) -> Arrays:
    """P [n, n], A, b, G, h, lb, ub and costs [B, n] of a row."""
    if row == "a":
        n, A, b, lb, ub = 3, np.ones((1, 3)), np.ones(1), np.zeros(3), np.ones(3)
        P, G, h, cost = 2.0 * np.eye(n), np.zeros((0, n)), np.zeros(0), rng.normal(size=(128, n))
    elif row == "b":
        n, root = 50, rng.normal(size=(50, 50))
        P, A, G = root @ root.T / n + 0.1 * np.eye(n), rng.normal(size=(10, n)), rng.normal(size=(50, n))
        inside = rng.normal(size=n)
        b, h = A @ inside, G @ inside + rng.uniform(0, 1, 50)
        lb, ub, cost = np.full(n, -np.inf), np.full(n, np.inf), 3.0 * rng.normal(size=(128, n))
    else:
        A, b = grid(5)
        n = A.shape[1]
        P, G, h = 0.1 * np.eye(n), np.zeros((0, n)), np.zeros(0)
        lb, ub, cost = np.zeros(n), np.ones(n), rng.uniform(0.5, 2.0, size=(128, n))
    return {"P": P, "A": A, "b": b, "G": G, "h": h, "lb": lb, "ub": ub, "cost": cost}


def grid(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Flow conservation on a k × k grid, right and down; the last, dependent row is left out."""
    edges = [((i, j), (i, j + 1)) for i in range(k) for j in range(k - 1)]
    edges += [((i, j), (i + 1, j)) for i in range(k - 1) for j in range(k)]
    A = np.zeros((k * k, len(edges)))
    for e, ((i, j), (u, v)) in enumerate(edges):
        A[i * k + j, e], A[u * k + v, e] = 1.0, -1.0
    b = np.zeros(k * k)
    b[0], b[-1] = 1.0, -1.0
    return A[:-1], b[:-1]


def decigrad_run(data: Arrays, solver: str) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Decisions and the pullback of ones·x (cotangent 2x) in the cost."""
    n = data["P"].shape[0]
    m = dg.Model("row")
    x = m.continuous("x", n, lb=data["lb"], ub=data["ub"])
    c = m.parameter("cost", shape=n)
    diagonal = np.diag(data["P"])
    separable = np.array_equal(np.diag(diagonal), data["P"])
    curved = dg.sum(0.5 * diagonal * x * x) if separable else 0.5 * dg.quad_form(x, data["P"])
    m.minimize(dg.sum(c * x) + curved)
    m.subject_to(data["A"] @ x == data["b"])
    if len(data["h"]):
        m.subject_to(data["G"] @ x <= data["h"])
    layer = dg.DecisionLayer(m, solver=solver)

    def run(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        solved = layer.solve({"cost": cost})
        multiplier = solved.adjoint({"x": 2.0 * solved.x["x"]}, layer.form)
        return solved.x["x"], -multiplier[:, :n]  # the cost enters the stationarity row with coefficient one

    return run


def qpth_run(data: Arrays) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The same through qpth, with bounds as rows of G."""
    import torch
    from qpth.qp import QPFunction

    torch.set_num_threads(1)
    n = data["P"].shape[0]
    rows, right = [data["G"]], [data["h"]]
    for sign, bound in ((1.0, data["ub"]), (-1.0, data["lb"])):
        finite = np.isfinite(bound)
        rows.append(sign * np.eye(n)[finite])
        right.append(sign * bound[finite])
    tensors = [
        torch.tensor(a) for a in (data["P"], np.vstack(rows), np.concatenate(right), data["A"], data["b"])
    ]

    def run(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        q = torch.tensor(cost, requires_grad=True)
        P, G, h, A, b = tensors
        x = QPFunction(verbose=-1, check_Q_spd=False)(P, q, G, h, A, b)
        (x**2).sum().backward()
        return x.detach().numpy(), q.grad.numpy()

    return run


def reference(data: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """x and d‖x‖²/dcost by an active-set solve at Clarabel's active set, sample by sample."""
    import clarabel
    from scipy import sparse

    n, me = data["P"].shape[0], len(data["b"])
    low, high = np.isfinite(data["lb"]), np.isfinite(data["ub"])
    G = np.vstack([data["G"], np.eye(n)[high], -np.eye(n)[low]])
    h = np.concatenate([data["h"], data["ub"][high], -data["lb"][low]])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-12
    cones = [clarabel.ZeroConeT(me), clarabel.NonnegativeConeT(len(h))]
    rows = sparse.csc_matrix(np.vstack([data["A"], G]))
    right = np.concatenate([data["b"], h])
    points, gradients = [], []
    for cost in data["cost"]:
        P = sparse.csc_matrix(np.triu(data["P"]))
        solved = clarabel.DefaultSolver(P, cost, rows, right, cones, settings).solve()
        active = np.array(solved.z)[me:] > np.array(solved.s)[me:]
        C = np.vstack([data["A"], G[active]])
        K = np.block([[data["P"], C.T], [C, np.zeros((len(C), len(C)))]])
        point = np.linalg.lstsq(K, np.concatenate([-cost, data["b"], h[active]]), rcond=None)[0][:n]
        pulled = np.linalg.lstsq(K, np.concatenate([2.0 * point, np.zeros(len(C))]), rcond=None)[0][:n]
        points.append(point)
        gradients.append(-pulled)
    return np.array(points), np.array(gradients)


def timed(run: Callable[[np.ndarray], Any], cost: np.ndarray, repeat: int) -> tuple[float, Any]:
    """Milliseconds (median of repetitions after a warm-up), and the result."""
    result = run(cost)
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = run(cost)
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times)), result


def measure(row: str, repeat: int) -> list[dict[str, Any]]:
    """All systems on one row."""
    data = instance(row, np.random.default_rng(0))
    point, gradient = reference(data)
    runs: dict[str, Callable[[np.ndarray], Any]] = {
        "decigrad, daqp": decigrad_run(data, "daqp"),
        "decigrad, interior point": decigrad_run(data, "interior-point"),
    }
    try:
        runs["qpth"] = qpth_run(data)
    except ImportError as error:
        print(f"row {row}: qpth is not installed ({error}); pip install 'decigrad[bench]'")
    found = []
    for name, run in runs.items():
        milliseconds, (x, g) = timed(run, data["cost"], repeat)
        scale = 1.0 + np.abs(gradient).max()
        found.append({
            "row": row, "system": name, "milliseconds": milliseconds,
            "error_x": float(np.abs(x - point).max()),
            "error_gradient": float(np.abs(g - gradient).max() / scale),
            "samples_off": int((np.abs(g - gradient).max(axis=1) > 1e-6 * scale).sum()),
        })  # fmt: skip
    peer = {f["system"]: f["milliseconds"] for f in found}.get("qpth")
    for f in found:
        f["times_faster_than_qpth"] = None if peer is None else peer / f["milliseconds"]
    return found


def table(found: list[dict[str, Any]]) -> str:
    """A Markdown table."""
    lines = [
        "| row | system | ms a batch | × faster than qpth | error of x | error of gradient | off by 1e-6 |",
        "|---|---|---|---|---|---|---|",
    ]
    for f in found:
        ratio = f["times_faster_than_qpth"]
        shown = "" if ratio is None else f"{ratio:.1f}"
        lines.append(
            f"| {f['row']} | {f['system']} | {f['milliseconds']:.2f} | {shown} | {f['error_x']:.1e} | "
            f"{f['error_gradient']:.1e} | {f['samples_off']} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure the rows and write `layers.json` and `.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="*", default=["a", "b", "d"])
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tables")
    options = parser.parse_args()
    found = [f for row in options.rows for f in measure(row, options.repeat)]
    text = table(found)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    intro = (__doc__ or "").strip()
    (options.out / "layers.md").write_text(f"# {intro}\n\n{text}\n", encoding="utf-8")
    (options.out / "layers.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
