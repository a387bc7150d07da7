"""Memory and time of training SPO+ on many samples of the 5 × 5 grid problem.

    python -m benchmarks.million [--samples 1000000] [--epochs 2] [--selection none default]

Each fit runs in a process of its own, which reports seconds and its largest resident size; the same on a
hundredth of the samples shows what does not grow with them. Five features, 40 edges, degree 4, noise ½, in
float64: what the problem itself is made of (features, true costs, decisions) takes 680 bytes a sample.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

OUT = Path(__file__).parent / "tables" / "million.json"


def peak() -> float:
    """The largest resident size of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def trained(samples: int, epochs: int, selection: str) -> dict[str, Any]:
    """One fit, in this process."""
    import decigrad as dg
    from decigrad import problems

    features, costs, _ = problems.shortest_path_samples(samples, 42, degree=4)
    data = dg.Dataset(features, targets={"cost": costs})
    del features, costs
    before, began = peak(), time.perf_counter()
    how = None if selection == "none" else "default"
    found = dg.fit(
        dg.Linear(), problems.shortest_path_layer(), data, dg.losses.SPOPlus(), epochs=epochs, selection=how,
        progress=False,
    )  # fmt: skip
    return {
        "samples": samples, "epochs": epochs, "selection": selection,
        "seconds": time.perf_counter() - began, "epoch_seconds": found.epoch_seconds,
        "solver_calls": found.solver_calls, "loss": found.history["loss"],
        "peak_gib": peak(), "data_gib": before,
    }  # fmt: skip


def measured(samples: int, epochs: int, selection: str) -> dict[str, Any]:
    """One fit, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.million", "--child", selection]
    command += ["--samples", str(samples), "--epochs", str(epochs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure and write `tables/million.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--selection", nargs="*", default=["none", "default"], choices=["none", "default"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(trained(options.samples, options.epochs, options.child)))
        return
    rows = []
    for selection in options.selection:
        for samples in (options.samples // 100, options.samples):
            rows.append(measured(samples, options.epochs, selection))
            print(
                "{samples:>9,} samples, selection {selection:7}: {seconds:7.1f} s, peak {peak_gib:.2f} GiB, "
                "{solver_calls:,} solver calls".format(**rows[-1]),
                flush=True,
            )
    OUT.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
