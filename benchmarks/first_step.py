"""Seconds from `import decigrad` to the end of the first epoch of a small fit, compilation included.

    python -m benchmarks.first_step [--repeat 5]

Every fit runs in a fresh process that has imported JAX and no more, on 100 samples in batches of 32, without
a cache of compiled code on disk. "none" trains at once; "default" first chooses by cross-validation, so that
two-stage is fitted and judged by fold before the first step. Medians; CPU seconds are those of all threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

OUT = Path(__file__).parent / "tables" / "first_step.json"
CASES = [(name, selection) for name in ("tutorial", "grid") for selection in ("none", "default")]


class _FirstEpoch(Exception):
    pass


def child(name: str, selection: str) -> dict[str, Any]:
    """One fit, in this process, to the end of its first epoch."""
    import jax
    import jax.numpy
    import numpy as np

    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: (
            compiled.append(event) if event.endswith("backend_compile_duration") else None
        )
    )
    wall, cpu = time.perf_counter(), time.process_time()
    import decigrad as dg
    from decigrad import problems

    imported = time.process_time() - cpu
    if name == "tutorial":
        m = dg.Model("allocation")
        x = m.continuous("x", shape=3, lb=0.0, ub=1.0)
        m.minimize(m.parameter("cost", shape=3) @ x + dg.sum(x * x))
        m.subject_to(dg.sum(x) == 1.0)
        layer, loss = dg.DecisionLayer(m, solver="daqp"), dg.losses.Regret()
        rng = np.random.default_rng(0)
        features = rng.normal(size=(100, 5))
        cost = 1.0 + 0.3 * features @ rng.normal(size=(5, 3)) + 0.1 * rng.normal(size=(100, 3))
    else:
        layer, loss = problems.shortest_path_layer(), dg.losses.SPOPlus()
        features, cost, _ = problems.shortest_path_samples(100, 42, degree=4)

    def stop(event: Any) -> None:
        raise _FirstEpoch

    how = {} if selection == "default" else {"selection": None}
    data = dg.Dataset(features, targets={"cost": cost})
    try:
        dg.fit(dg.Linear(), layer, data, loss, epochs=2, callbacks=[stop], progress=False, **how)
    except _FirstEpoch:
        return {
            "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "import": imported,
            "compiled": len(compiled),
        }  # fmt: skip
    raise AssertionError("no epoch was reported")


def main() -> None:
    """Measure and write `tables/first_step.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    rows = []
    for name, selection in CASES:
        command = [sys.executable, "-m", "benchmarks.first_step", "--child", name, selection]
        runs = []
        for _ in range(options.repeat):
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
        rows.append({"problem": name, "selection": selection})
        rows[-1] |= {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        print(
            "{problem:9} selection {selection:8} {wall:5.2f} s, {cpu:5.2f} CPU s ({import:.2f} for imports), "
            "{compiled} functions compiled".format(**rows[-1]),
            flush=True,
        )
    OUT.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
