"""The default training recipe against two-stage on the tutorial's two problems: six cells, many seeds.

    python -m benchmarks.default_recipe [--seeds 30] [--test 3000] [--out benchmarks/tables]
    python -m benchmarks.default_recipe --picture docs/images/gain.png

For each problem and number of training samples: `fit(Linear(), layer, data)` with all defaults against least
squares on the same data, both judged by full-objective regret on fresh samples. Gains are paired by seed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

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


def cell(part: str, n: int, seeds: int, test_size: int) -> dict[str, Any]:
    """Mean test regret of two-stage and of the default recipe by seed, and the paired gain in percent."""
    model = allocation.allocation_model() if part == "allocation" else allocation.returns_model()
    # Both solvers give the same decisions; the interior point takes a minute to compile and pays off at 1000.
    layer = dg.DecisionLayer(model, solver="interior-point" if n >= 1000 else "daqp")
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


def table(cells: list[dict[str, Any]]) -> str:
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


def picture(cells: list[dict[str, Any]], path: Path) -> None:
    """Gain over two-stage against the number of training samples, with standard errors."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 3.2), layout="constrained", dpi=160)
    axes = figure.subplots()
    for part, colour, marker in (("allocation", "#0072B2", "o"), ("portfolio", "#D55E00", "s")):
        rows = [c for c in cells if c["problem"] == part]
        axes.errorbar(
            [c["samples"] for c in rows],
            [c["gain_percent"] for c in rows],
            yerr=[c["standard_error"] for c in rows],
            label=part, color=colour, marker=marker, capsize=3,
        )  # fmt: skip
    axes.axhline(0.0, color="0.5", linewidth=0.8)
    axes.set(xscale="log", xlabel="training samples", ylabel="less regret than two-stage, %")
    axes.set_xticks([30, 100, 1000], ["30", "100", "1000"])
    axes.minorticks_off()
    axes.set_title("Decision-focused against two-stage (30 seeds, ± standard error)", fontsize=10)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """Run the cells and write `default_recipe.json` and `.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--test", type=int, default=3000)
    parser.add_argument("--cells", type=int, nargs="*", default=range(len(CELLS)))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tables")
    parser.add_argument("--picture", type=Path, help="only draw the committed results, into this file")
    options = parser.parse_args()
    if options.picture is not None:
        committed = json.loads((options.out / "default_recipe.json").read_text(encoding="utf-8"))
        picture(committed, options.picture)
        return
    cells = []
    for i in options.cells:
        part, n = CELLS[i]
        cells.append(cell(part, n, options.seeds, options.test))
        last = cells[-1]
        print(f"{part} n={n}: gain {last['gain_percent']:+.2f} ± {last['standard_error']:.2f} %", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    text = f"# Default recipe against two-stage\n\n{(__doc__ or '').strip()}\n\n{table(cells)}\n"
    (options.out / "default_recipe.md").write_text(text, encoding="utf-8")
    (options.out / "default_recipe.json").write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
