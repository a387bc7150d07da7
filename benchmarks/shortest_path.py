"""Every method on the 5 × 5 grid shortest path, beside least squares and the Bayes floor.

    python -m benchmarks.shortest_path [--seeds 5] [--degrees 4] [--samples 1000] [--out benchmarks/tables]

PyEPO's setting: 2,000 draws with seed 42, noise ½, split in half by scikit-learn's `train_test_split(...,
random_state=42)`; a linear predictor. Every method is trained from two-stage by the default recipe: proximal
weight and number of epochs (at most 30) by 5-fold cross-validated regret, then refitted on all training data.
Seeds shuffle and fold; the data are the same. The floor decides by the true expected costs. Times are those
of a whole `fit`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import decigrad as dg
from decigrad.problems import shortest_path_layer, shortest_path_samples

EPOCHS = 30
LEFT_OUT = ("regret",)  # exact derivative: zero almost everywhere for a linear program


def split(degree: int, samples: int) -> tuple[dg.Dataset, dg.Dataset, np.ndarray]:
    """Training and test data of one setting, and the expected costs of the test samples."""
    from sklearn.model_selection import train_test_split

    x, c, expected = shortest_path_samples(samples + 1000, 42, degree=degree)
    known, unseen = train_test_split(np.arange(len(x)), test_size=1000, random_state=42)
    train, test = (dg.Dataset(x[part], targets={"cost": c[part]}) for part in (known, unseen))
    return train, test, expected[unseen]


def floor(layer: dg.DecisionLayer, test: dg.Dataset, expected: np.ndarray) -> float:
    """Normalized regret of the decisions at the expected costs, in %."""
    best = layer.solve(test.parameters).objective.sum()
    decided = layer.solve({"cost": expected}).x["x"]
    return 100.0 * float((test.targets["cost"] * decided).sum() / best - 1.0)


def measure(degree: int, samples: int, seeds: int) -> dict[str, Any]:
    """Mean and spread of the normalized test regret by method, seconds and solver calls of a fit."""
    layer = shortest_path_layer()
    train, test, expected = split(degree, samples)
    rows = {}
    for name in [entry.name for entry in dg.methods() if entry.name not in LEFT_OUT]:
        compared = dg.compare(
            layer, train, test, methods=[name], baseline=name, seeds=seeds, epochs=EPOCHS, progress=False
        )
        regret = 100.0 * compared.data.values(name, "normalized_regret")
        fits = compared.results[name]
        rows[name] = {
            "regret": regret.tolist(),
            "seconds": float(np.median([f.seconds for f in fits])),
            "calls": int(np.median([f.solver_calls for f in fits])),
        }
        print(f"degree {degree}, n {samples}, {name}: {regret.mean():.2f} ± {regret.std():.2f}", flush=True)
    return {"degree": degree, "samples": samples, "floor": floor(layer, test, expected), "methods": rows}


def table(cells: list[dict[str, Any]]) -> str:
    """Markdown, a section for each setting, the best method first."""
    parts = []
    for cell in cells:
        parts.append(
            f"## Degree {cell['degree']}, {cell['samples']} samples; Bayes floor {cell['floor']:.2f} %\n"
        )
        parts.append(
            "| method | normalized regret, % | seconds a fit | solver calls a fit |\n|---|---|---|---|"
        )
        for name, row in sorted(cell["methods"].items(), key=lambda item: np.mean(item[1]["regret"])):
            mean, spread = np.mean(row["regret"]), np.std(row["regret"])
            parts.append(f"| {name} | {mean:.2f} ± {spread:.2f} | {row['seconds']:.1f} | {row['calls']:,} |")
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    """Measure all settings and write `shortest_path.md` and `shortest_path.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--degrees", type=int, nargs="*", default=[4])
    parser.add_argument("--samples", type=int, nargs="*", default=[1000])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tables")
    options = parser.parse_args()
    cells = [measure(d, n, options.seeds) for d in options.degrees for n in options.samples]
    options.out.mkdir(parents=True, exist_ok=True)
    text = (
        f"# Grid shortest path\n\n{(__doc__ or '').strip()}\n\n± is the spread over seeds.\n\n{table(cells)}"
    )
    (options.out / "shortest_path.md").write_text(text, encoding="utf-8")
    (options.out / "shortest_path.json").write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")
    print(table(cells))


if __name__ == "__main__":
    main()
