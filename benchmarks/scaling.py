"""How cost grows: with samples, variables, batch and cores; and memory with samples and epochs.

    python -m benchmarks.scaling [--parts samples variables batch cores epochs]
    python -m benchmarks.scaling --quick

Every point is a process of its own, so that its peak memory is its own; imports and compilation are not
timed.

- samples: an epoch of SPO+ on the 5 × 5 grid (features, costs, decisions: 85 numbers a sample), batches of 32
- variables: rows a, b, d and e of the layers at batch 32, forward and backward
- batch: rows a and b of the layers
- cores: the same, and the epoch, on one core and on two
- epochs: peak memory of the training above, 100,000 samples

Slopes p of cost ~ size^p are least squares in log-log over all points, and over the last two.
"""

from __future__ import annotations

import argparse
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness, worker
from benchmarks.layers_report import ms
from benchmarks.programs import Cell

PACKAGES = ("jax", "numpy", "daqp", "decigrad")
SYSTEM = "decigrad"
_LIMIT = 900.0

MEANING = {
    "samples": "An epoch passes once over the data in batches of one size: linear, once fixed costs fade.",
    "variables a": "Diagonal curvature, one equality: the compiled core applies a dense factor, n² a sample, "
    "where the structure would allow n; below some 100 variables the call rules.",
    "variables b": "Dense P and n inequalities: factors (n³) are shared by the batch; a sample costs the "
    "changes of its active set, which grow with n, at n² each: towards 3.",
    "variables d": "A grid of n edges has n/2 equalities. Block pivoting factors whole active sets of up to "
    "n/2 bounds, n³ each, and large ones leave the caches.",
    "variables e": "Covariance of rank n/10 is one dense factor for the batch, n² a sample; the active set "
    "is small.",
    "batch a": "Below 1 where the fixed cost of a call rules; then each sample costs the same.",
    "batch b": "Below 1 where factoring once and the call rule; then each sample costs the same.",
    "epochs": "Peak memory (not time): what an epoch makes, the next overwrites.",
}


@dataclass(frozen=True)
class Point:
    """One measurement: `size` on the axis of `part`; a layer's cell, or a training."""

    part: str
    size: int
    cell: Cell | None = None
    samples: int = 0
    epochs: int = 3
    cores: int = 1

    @property
    def key(self) -> str:
        return f"{self.part.replace(' ', '-')}-{self.size}-{self.cores}"


def points(quick: bool) -> list[Point]:
    """All points, in the order of their cost within a part."""
    if quick:
        return [Point("batch a", b, Cell("a", b)) for b in (1, 4)]
    found = [Point("samples", n, samples=n) for n in (1000, 10_000, 100_000, 1_000_000)]
    sizes = {"a": (3, 10, 30, 100, 300, 1000), "b": (10, 30, 100, 300, 1000)}
    sizes |= {"d": (12, 40, 112, 312, 1012), "e": (10, 30, 100, 300, 1000)}
    found += [Point(f"variables {r}", n, Cell(r, 32, n)) for r, row in sizes.items() for n in row]
    found += [Point(f"batch {r}", b, Cell(r, b)) for r in "ab" for b in (1, 8, 32, 128, 512, 4096)]
    for cores in (1, 2):
        found += [Point(f"cores {r}", 0, Cell(r, b), cores=cores) for r, b in (("b", 512), ("c", 64))]
        found.append(Point("cores grid", 0, samples=10_000, cores=cores))
    return found + [Point("epochs", e, samples=100_000, epochs=e) for e in (2, 4, 16)]


# ------------------------------------------------------------------------------- what the processes do


def peak() -> int:
    """Peak memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def epochs(samples: int, count: int) -> list[float]:
    """Seconds of epochs of SPO+ on the grid; the first, which compiles, is left out where there are more."""
    import decigrad as dg
    from decigrad import problems

    x, c, _ = problems.shortest_path_samples(samples, 42, degree=4)
    found = dg.fit(
        dg.Linear(), problems.shortest_path_layer(), dg.Dataset(x, targets={"cost": c}), dg.losses.SPOPlus(),
        selection=None, epochs=count, averaging=False, progress=False,
    )  # fmt: skip
    return [float(s) for s in found.epoch_seconds[1:] or found.epoch_seconds]


# ------------------------------------------------------------------------------------------ measuring


def measure(point: Point, repeat: int) -> dict[str, Any]:
    """Seconds and peak memory of a point."""
    found: dict[str, Any] = {"part": point.part, "size": point.size, "cores": point.cores}
    process = harness.Process(point.cores)
    try:
        if point.cell is None:
            seconds = process.ask(epochs, point.samples, point.epochs, limit=_LIMIT)
            found["samples"] = point.samples
        else:
            process.ask(worker.prepare, SYSTEM, point.cell, limit=_LIMIT)
            seconds = [process.ask(worker.repetition, limit=_LIMIT)[0] for _ in range(repeat)]
        found |= {"seconds": harness.spread(seconds), "peak": process.ask(peak, limit=60.0)}
    except harness.Failure as failure:
        found["missing"] = str(failure).split("\n")[0][:200]
    finally:
        process.end()
    return found


# ------------------------------------------------------------------------------------------- reporting


def series(found: list[dict[str, Any]], part: str) -> list[dict[str, Any]]:
    return sorted((f for f in found if f["part"] == part and "seconds" in f), key=lambda f: f["size"])


def slopes(found: list[dict[str, Any]]) -> str:
    """Exponents of all series, over all points and over the last two, with what they mean."""
    rows = []
    for part in MEANING:
        line = series(found, part)
        if len(line) < 2:
            continue
        sizes = [f["size"] for f in line]
        costs = [f["peak"] if part == "epochs" else f["seconds"]["median"] for f in line]
        fitted = harness.slope(sizes, costs), harness.slope(sizes[-2:], costs[-2:])
        range_of = f"{sizes[0]:,} to {sizes[-1]:,}"
        rows.append([part, range_of, *(f"{p:.2f}" for p in fitted), MEANING[part] + memory(part, line)])
    head = ("against", "from … to", "p, all", "p, last two", "why")
    return harness.markdown(head, rows)


def text(found: list[dict[str, Any]], versions: dict[str, str]) -> str:
    """The page."""
    parts = [f"# {(__doc__ or '').strip()}", harness.described(versions)]
    parts += ["## In short", harness.BEGIN, slopes(found), harness.END]
    for part in dict.fromkeys(f["part"] for f in found):
        line = series(found, part)
        if not line or part.startswith("cores"):
            continue
        rows = [
            (
                f"{f['size']:,}",
                ms(f["seconds"]["median"]),
                f"{1e6 * f['seconds']['median'] / per(f):.3g}",
                f"{f['peak'] / 2**20:,.0f}",
            )
            for f in line
        ]
        what = "ms an epoch" if "samples" in line[0] else "ms a batch"
        head = (part.split()[0], what, "µs a sample", "peak memory, MiB")
        parts += [f"## {part.capitalize()}", harness.markdown(head, rows)]
    cores = [f for f in found if f["part"].startswith("cores") and "seconds" in f]
    if cores:
        rows = []
        for part in dict.fromkeys(f["part"] for f in cores):
            one, two = (
                next((f for f in cores if f["part"] == part and f["cores"] == k), None) for k in (1, 2)
            )
            if one and two:
                pair = one["seconds"]["median"], two["seconds"]["median"]
                rows.append([part.split()[1], *(ms(s) for s in pair), f"{pair[0] / pair[1]:.2f}"])
        head = ("what", "ms on one core", "ms on two", "times faster")
        parts += [
            "## Cores",
            "Rows b (batch 512) and c (batch 64) of the layers, and an epoch of the grid (10,000 samples).",
            harness.markdown(head, rows),
        ]
    lost = [f"{f['part']}, {f['size']:,}: {f['missing']}" for f in found if "missing" in f]
    if lost:
        parts += ["## Not measured", *lost]
    return "\n\n".join(parts)


def per(found: dict[str, Any]) -> int:
    """Samples that a measurement's seconds are for."""
    if "samples" in found:
        return int(found["samples"])
    return int(found["size"]) if found["part"].startswith("batch") else 32


def memory(part: str, line: list[dict[str, Any]]) -> str:
    """What a sample takes, from the last two points."""
    if part == "epochs":
        return f" From {line[0]['size']} to {line[-1]['size']} epochs: {_grown(line[0], line[-1])}."
    if part != "samples":
        return ""
    more = (line[-1]["peak"] - line[-2]["peak"]) / (line[-1]["size"] - line[-2]["size"])
    return f" Memory: {more:,.0f} bytes a sample at the peak; its numbers alone are {85 * 8} bytes."


def _grown(first: dict[str, Any], last: dict[str, Any]) -> str:
    return f"{(last['peak'] - first['peak']) / 2**20:+,.0f} MiB"


def picture(path: Path, found: list[dict[str, Any]]) -> None:
    """Log-log lines: samples, variables, batch; and memory."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.style.context(Path(__file__).parents[1] / "docs" / "matplotlibrc"):
        plt.rcParams["svg.hashsalt"] = "scaling"
        figure, axes = plt.subplots(1, 4, figsize=(13.2, 3.4))
        panels = (
            (axes[0], ("samples",), "samples", "seconds an epoch"),
            (axes[1], tuple(f"variables {r}" for r in "abde"), "variables, batch 32", "seconds a batch"),
            (axes[2], ("batch a", "batch b"), "batch", "seconds a batch"),
        )
        for axis, parts, label, unit in panels:
            for part in parts:
                if line := series(found, part):
                    sizes = np.array([f["size"] for f in line])
                    costs = np.array([f["seconds"]["median"] for f in line])
                    name = part.split()[-1] if len(parts) > 1 else None
                    shown = f"row {name}, p = {_last(sizes, costs)}" if name else f"p = {_last(sizes, costs)}"
                    axis.plot(sizes, costs, marker="o", ms=4, label=shown)
            axis.set(xscale="log", yscale="log", xlabel=label, ylabel=unit)
            if axis.get_legend_handles_labels()[0]:
                axis.legend()
        for part, label in (("samples", "by samples"), ("epochs", "100,000 samples, by epochs")):
            if line := series(found, part):
                axes[3].plot(
                    [f["size"] for f in line], [f["peak"] / 2**30 for f in line], marker="o", label=label
                )
        axes[3].set(xscale="log", yscale="log", xlabel="samples or epochs", ylabel="peak memory, GiB")
        if axes[3].get_legend_handles_labels()[0]:
            axes[3].legend()
        harness.draw(figure, path)
        plt.close(figure)


def _last(sizes: np.ndarray, costs: np.ndarray) -> str:
    return f"{harness.slope(sizes[-2:], costs[-2:]):.2f}" if len(sizes) > 1 else "–"


def write(out: Path, found: list[dict[str, Any]], versions: dict[str, str]) -> None:
    """`scaling.md`, `scaling.json` and `scaling.svg`."""
    everything = {"machine": harness.machine(), "versions": versions, "points": found}
    harness.save(out, "scaling", text(found, versions), everything)
    picture(out / "scaling.svg", found)


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write `scaling.md`, `scaling.json` and `scaling.svg`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = ["samples", "variables", "batch", "cores", "epochs"]
    parser.add_argument("--parts", nargs="*", default=parts, choices=parts)
    parser.add_argument("--most", type=int, default=1_000_000, help="samples, at most")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run has measured")
    parser.add_argument("--quick", action="store_true", help="a smoke test: two small batches")
    parser.add_argument("--journal", type=Path, default=harness.JOURNAL / "scaling")
    parser.add_argument("--out", type=Path, default=harness.TABLES)
    options = parser.parse_args(arguments)
    versions = harness.versions(PACKAGES)
    settings = {
        "repeat": options.repeat,
        "library": harness.library(),
        "machine": harness.machine(),
        "versions": versions,
    }
    journal = harness.Journal(options.journal, settings, options.fresh)
    found: list[dict[str, Any]] = []
    try:
        for point in points(options.quick):
            if point.part.split()[0] not in options.parts or point.samples > options.most:
                continue
            if point.key in journal:
                entry = journal[point.key]
            else:
                entry = measure(point, 1 if options.quick else options.repeat)
                if "missing" not in entry:
                    journal[point.key] = entry
            found.append(entry)
            shown = ms(entry["seconds"]["median"]) + " ms" if "seconds" in entry else entry["missing"]
            print(f"{point.part}, {point.size:,}, {point.cores} core(s): {shown}", flush=True)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
    write(options.out, found, versions)
    print(text(found, versions))


if __name__ == "__main__":
    main()
