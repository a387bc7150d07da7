"""The default training recipe against two-stage on the tutorial's two problems: six cells, many seeds.

    python -m benchmarks.default_recipe [--seeds 30] [--test 3000] [--out benchmarks/tables]

For each problem and number of training samples: `fit(Linear(), layer, data)` with all defaults against least
squares on the same data, both judged by full-objective regret on fresh test samples. Gains are paired by seed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

import decigrad as dg
from decigrad.problems import allocation

CELLS = [(part, n) for part in ("allocation", "portfolio") for n in (30, 100, 1000)]


def draw(part: str, n: int, state: np.random.RandomState) -> dg.Dataset:
    """n samples of one part of the tutorial."""
    if part == "allocation":
        features, costs = allocation.allocation_samples(n, state)
        return dg.Dataset(features, {"cost": costs})
    features, returns = allocation.returns_samples(n, state)
    return dg.Dataset(features, {"returns": returns})


def cell(part: str, n: int, seeds: int, test_size: int, solver: str) -> dict[str, object]:
    """Mean test regret of two-stage and of the default recipe by seed, and the paired gain in percent."""
    model = allocation.allocation_model() if part == "allocation" else allocation.returns_model()
    layer = dg.DecisionLayer(model, solver=solver)
    rows = []
    started = time.perf_counter()
    for seed in range(seeds):
        state = np.random.RandomState(1000 + seed)
        train, test = draw(part, n, state), draw(part, test_size, state)
        result = dg.fit(dg.Linear(), layer, train, seed=seed)
        base = dg.evaluate(result.two_stage, layer, test).mean_regret
        found = dg.evaluate(result.predictor, layer, test).mean_regret
        rows.append((base, found, result.chosen["proximal_weight"], result.chosen["epochs"]))
    base, found = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    gain = 100.0 * (base - found) / base.mean()
    return {
        "problem": part,
        "samples": n,
        "seeds": seeds,
        "two_stage": float(base.mean()),
        "default": float(found.mean()),
        "gain_percent": float(gain.mean()),
        "standard_error": float(gain.std(ddof=1) / np.sqrt(seeds)),
        "wins": int((found < base).sum()),
        "kept_two_stage": int(sum(np.isinf(r[2]) for r in rows)),
        "seconds": time.perf_counter() - started,
        "by_seed": [
            {"two_stage": b, "default": f, "proximal_weight": str(w), "epochs": e} for b, f, w, e in rows
        ],
    }


def table(cells: list[dict[str, object]]) -> str:
    """The cells as a Markdown table."""
    lines = [
        "| problem | n | two-stage regret | default regret | gain, % ± s.e. | better | kept two-stage |",
        "|---|---|---|---|---|---|---|",
    ]
    for c in cells:
        lines.append(
            f"| {c['problem']} | {c['samples']} | {c['two_stage']:.5f} | {c['default']:.5f} | "
            f"{c['gain_percent']:+.2f} ± {c['standard_error']:.2f} | {c['wins']}/{c['seeds']} | "
            f"{c['kept_two_stage']}/{c['seeds']} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the cells and write `default_recipe.json` and `.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--test", type=int, default=3000)
    parser.add_argument("--solver", default="interior-point")
    parser.add_argument("--cells", type=int, nargs="*", default=range(len(CELLS)))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tables")
    options = parser.parse_args()
    cells = []
    for i in options.cells:
        part, n = CELLS[i]
        cells.append(cell(part, n, options.seeds, options.test, options.solver))
        print(f"{part} n={n}: gain {cells[-1]['gain_percent']:+.2f} ± {cells[-1]['standard_error']:.2f} %", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    text = f"# Default recipe against two-stage\n\n{(__doc__ or '').strip()}\n\n{table(cells)}\n"
    (options.out / "default_recipe.md").write_text(text, encoding="utf-8")
    (options.out / "default_recipe.json").write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
