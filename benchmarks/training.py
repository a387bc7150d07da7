"""Training beside the peers: seconds an epoch, and regret after the same number of epochs.

    python -m benchmarks.training [--data DIRECTORY] [--rows grid knapsack tour energy battery tutorial]
    python -m benchmarks.training --quick

Both sides train the same linear predictor on the same draws with Adam and batches of 32, from the same
start, each in a process of its own on one thread. Labels are computed beforehand and not counted, nor is
what comes once: building models, compiling. Epochs of the two sides alternate; seconds are medians. Beside
them stand the largest relative difference between the two sides' optimal values over the training samples,
and the test regret of both after the same number of epochs, judged by the same exact solver, mean ± standard
deviation over several orders of the samples, which are not the same on the two sides.

| | ours and theirs | peer |
|---|---|---|
| grid | 5 × 5, 1,000 samples, SPO+ from zero | PyEPO, OR-Tools' GLOP |
| knapsack | 32 items × 2, 1,000 samples, SPO+ from zero | PyEPO, OR-Tools' SCIP |
| tour | 20 cities, 32 samples, SPO+ from zero | PyEPO, Pyomo and HiGHS, Gavish-Graves |
| energy | 48 half-hours, 550 days, SPO+ from least squares | PyEPO, OR-Tools' SCIP |
| battery | 24 hours, regret through a QP, from least squares | qpth in PyTorch |
| tutorial | both parts, 600 differentiated solves | discopt: 600 × the median of one |

Energy and battery read files of the ICON challenge (`icon/knapsack_Data.npz`) and of Donti, Amos and Kolter
(`storage/storage_data.csv`) in the folder given by --data. Where discopt is not installed, the published 41 s
of its version 0.9 stand for it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness, training_own, training_peers
from benchmarks.training_own import PROBLEMS

PACKAGES = ("jax", "numpy", "torch", "pyepo", "ortools", "pyomo", "highspy", "qpth", "discopt")

PUBLISHED = 41.0
"""Seconds of the tutorial with discopt 0.9."""

_LIMIT = 900.0
_LEAST = 0.2
"""Seconds of our epochs between two of the peer's, at least."""


def measure(name: str, data: Path | None, repeat: int) -> dict[str, Any]:
    """One row of the table."""
    if name == "tutorial":
        return tutorial(repeat)
    problem = PROBLEMS[name]
    found: dict[str, Any] = {
        "name": name,
        "title": problem.title,
        "peer name": problem.peer,
        "unit": problem.unit,
    }
    if problem.needs and (data is None or not (data / problem.needs).exists()):
        return {**found, "missing": f"needs {problem.needs} (--data)"}
    own, peer = harness.Process(), harness.Process()
    try:
        draw = own.ask(training_own.begin, name, data, limit=_LIMIT)
        found["samples"] = len(draw.x)
        values = peer.ask(training_peers.begin, name, draw, limit=_LIMIT)
        if values is not None:
            best = own.ask(training_own.optimal_values, limit=_LIMIT)
            found["apart"] = float(np.abs(values - best).max() / np.abs(best).max())
        peer.ask(training_peers.epochs, 1, limit=_LIMIT)
        one = own.ask(training_own.epochs, 2, limit=_LIMIT)[-1]
        count = 1 + int(np.clip(_LEAST / one, 2, 40))  # the first of a training is left out
        times: dict[str, list[float]] = {"own": [], "peer": []}
        for _ in range(max(1, min(repeat, problem.repeat))):
            times["own"] += own.ask(training_own.epochs, count, limit=_LIMIT)[1:]
            times["peer"] += peer.ask(training_peers.epochs, 1, limit=_LIMIT)
        found |= {side: harness.spread(seconds) for side, seconds in times.items()}
        if len(draw.test_x):
            found |= {"epochs": problem.epochs, "own regret": [], "peer regret": []}
            for seed in range(problem.orders):
                weights = peer.ask(training_peers.trained, seed, problem.epochs, limit=_LIMIT)
                found["peer regret"].append(own.ask(training_own.score, *weights, limit=_LIMIT))
                found["own regret"].append(own.ask(training_own.regret, seed, limit=_LIMIT))
    except harness.Failure as failure:
        found["missing"] = str(failure).split("\n")[0][:200]
    finally:
        own.end()
        peer.end()
    return found


def tutorial(repeat: int) -> dict[str, Any]:
    """The discopt tutorial, solve and train."""
    found: dict[str, Any] = {"name": "tutorial", "title": "the discopt tutorial, both parts", "unit": ""}
    own, peer = harness.Process(), harness.Process()
    try:
        own.ask(training_own.tutorial, True, limit=_LIMIT)
        try:
            peer.ask(training_peers.tutorial, True, limit=_LIMIT)
            available = True
        except harness.Failure as failure:
            found["published"] = f"discopt is not available ({str(failure).split(chr(10))[0][:120]})"
            available = False
        times: dict[str, list[float]] = {"own": [], "peer": []}
        for _ in range(repeat):
            times["own"].append(own.ask(training_own.tutorial, False, limit=_LIMIT))
            if available:
                times["peer"] += [
                    600 * peer.ask(training_peers.tutorial, False, limit=_LIMIT) for _ in range(3)
                ]
        found |= {"own": harness.spread(times["own"]), "peer": harness.spread(times["peer"] or [PUBLISHED])}
        found["peer name"] = "discopt, 600 solves" if available else "discopt 0.9, published"
    except harness.Failure as failure:
        found["missing"] = str(failure).split("\n")[0][:200]
    finally:
        own.end()
        peer.end()
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = []
    for r in rows:
        if "missing" in r:
            lines.append([r["name"], "", r.get("peer name", ""), r["missing"], "", "", ""])
            continue
        own, peer = r["own"], r["peer"]
        regret = ""
        if "own regret" in r:
            digits = 2 if max(*r["own regret"], *r["peer regret"]) < 100 else 1
            pair = " / ".join(
                f"{np.mean(r[side]):.{digits}f} ± {np.std(r[side], ddof=1):.{digits}f}"
                for side in ("own regret", "peer regret")
            )
            regret = f"{pair} {r['unit']} after {r['epochs']}".replace("  ", " ")
        lines.append(
            [
                r["name"],
                f"{own['median']:.3g} ({own['q1']:.3g}–{own['q3']:.3g})",
                r["peer name"],
                f"{peer['median']:.3g} ({peer['q1']:.3g}–{peer['q3']:.3g})",
                f"{peer['median'] / own['median']:.0f}",
                f"{r['apart']:.0e}" if "apart" in r else "",
                regret,
            ]
        )
    head = (
        "problem",
        "decigrad, s an epoch (quartiles)",
        "peer",
        "peer, s",
        "times faster",
        "values apart",
        "regret, ours / theirs",
    )
    return harness.markdown(head, lines)


def write(out: Path, rows: list[dict[str, Any]], versions: dict[str, str]) -> None:
    """`training.md` and `training.json` from what is there so far."""
    parts = [f"# {(__doc__ or '').strip()}", harness.described(versions)]
    text = "\n\n".join([*parts, harness.BEGIN, table(rows), harness.END])
    harness.save(out, "training", text, {"machine": harness.machine(), "versions": versions, "rows": rows})


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write `training.md` and `training.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = ["tutorial", *PROBLEMS]
    parser.add_argument("--rows", nargs="*", default=names, choices=names)
    parser.add_argument("--data", type=Path, help="folder with icon/ and storage/")
    parser.add_argument("--repeat", type=int, default=7, help="epochs timed on each side, at most")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run has measured")
    parser.add_argument("--quick", action="store_true", help="a smoke test: the grid, two epochs")
    parser.add_argument("--journal", type=Path, default=harness.JOURNAL / "training")
    parser.add_argument("--out", type=Path, default=harness.TABLES)
    options = parser.parse_args(arguments)
    if options.quick:
        options.rows, options.repeat = ["grid"], 2
    versions = harness.versions(PACKAGES)
    settings = {
        "repeat": options.repeat,
        "library": harness.library(),
        "machine": harness.machine(),
        "versions": versions,
    }
    journal = harness.Journal(options.journal, settings, options.fresh)
    rows = []
    try:
        for name in options.rows:
            if name in journal:
                found = journal[name]
            else:
                found = measure(name, options.data, options.repeat)
                if "missing" not in found:
                    journal[name] = found
            rows.append(found)
            print(table(rows[-1:]), "\n", flush=True)
            write(options.out, rows, versions)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)


if __name__ == "__main__":
    main()
