"""Tables and the picture of `layers`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.peers import SYSTEMS
from benchmarks.programs import ROWS

Entry = dict[str, Any]

COLUMNS = ("system", "ms", "±", "CPU ms", "start, s", "error of x", "of gradient", "off", "failed")


def ms(seconds: float) -> str:
    """Milliseconds with three digits."""
    value = 1e3 * seconds
    return f"{value:.4f}" if value < 0.1 else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def cell_table(entries: Iterable[Entry]) -> str:
    """One cell: the fastest first, then what is missing and why."""
    entries = list(entries)
    timed = sorted((e for e in entries if "wall" in e), key=lambda e: e["wall"]["median"])
    rows = [
        [
            e["system"],
            ms(e["wall"]["median"]),
            ms(e["wall"]["q3"] - e["wall"]["q1"]) if e["repetitions"] > 1 else "–",
            ms(e["cpu"]["median"]),
            f"{max(0.0, e['started']):.1f}",
            f"{e['error_x']:.0e}" if "error_x" in e else "",
            f"{e['error_gradient']:.0e}" if "error_gradient" in e else "",
            str(e.get("off", "")),
            str(e.get("failed", "")),
        ]
        for e in timed
    ]
    rows += [[e["system"], e["missing"], *[""] * 7] for e in entries if "missing" in e]
    first = entries[0]
    title = f"{first['row']}, n = {first['n']}, batch {first['batch']}"
    if timed and "compared" in timed[0]:
        title += f"; {max(e['compared'] + e['failed'] for e in timed if 'compared' in e)} samples compared"
        if timed[0]["unsure"]:
            title += f", {timed[0]['unsure']} left out (reference not verified)"
    return f"### Row {title}\n\n{harness.markdown(COLUMNS, rows)}"


def fastest(entries: Iterable[Entry], kind: str, accurate: float | None = None) -> Entry | None:
    """The fastest of a kind, of those that are as accurate as asked."""
    timed = [
        e for e in entries if "wall" in e and SYSTEMS[e["system"]].kind == kind
        and not SYSTEMS[e["system"]].alone
        and (accurate is None or max(e.get("error_x", 1.0), e.get("error_gradient", 1.0)) <= accurate)
    ]  # fmt: skip
    return min(timed, key=lambda e: e["wall"]["median"], default=None)


def ratios(entries: list[Entry]) -> str:
    """The targets: how much faster than the fastest peer, and than Moreau through JAX, by row."""
    rows = []
    for row in ROWS:
        here = [e for e in entries if e["row"] == row and e["headline"]]
        own, peer = fastest(here, "own", 1e-8), fastest(here, "peer")
        moreau = next((e for e in here if e["system"] == "Moreau, jit" and "wall" in e), None)
        jitted = fastest([e for e in here if e["system"].endswith("jit")], "own", 1e-8)
        if own is None:
            continue
        parts = [f"{row}: {ROWS[row].title}", f"{own['system']}: {ms(own['wall']['median'])}"]
        for other in (peer, moreau):
            if other is None:
                parts.append("–")
            else:
                times = other["wall"]["median"] / own["wall"]["median"]
                parts.append(f"{times:.1f} ({other['system']}: {ms(other['wall']['median'])})")
        if moreau is not None and jitted is not None:
            parts.append(f"{moreau['wall']['median'] / jitted['wall']['median']:.1f}")
        else:
            parts.append("–")
        rows.append(parts)
    head = (
        "row",
        "fastest of ours at 1e-8, ms",
        "× faster than the fastest peer",
        "× than Moreau through JAX",
        "the same, both in jit",
    )
    return harness.markdown(head, rows)


def sweep(entries: list[Entry], along: str) -> str:
    """Milliseconds of each system along batches or sizes, one table a row."""
    parts = []
    for row in ROWS:
        here = [e for e in entries if e["row"] == row and _along(e, along)]
        steps = sorted({e[along] for e in here})
        if len(steps) < 2:
            continue
        rows = []
        for system in SYSTEMS:
            found = {e[along]: e for e in here if e["system"] == system}
            if any("wall" in e for e in found.values()):
                rows.append([system, *(_shown(found.get(step)) for step in steps)])
        what = "batch" if along == "batch" else "n"
        titled = f"### Row {row}, {'by batch' if along == 'batch' else 'by size, batch 32'}: ms a batch"
        parts.append(f"{titled}\n\n{harness.markdown(['system', *(f'{what} {s:,}' for s in steps)], rows)}")
    return "\n\n".join(parts)


def _along(entry: Entry, along: str) -> bool:
    if SYSTEMS[entry["system"]].alone and along == "n":
        return False
    return entry["n"] == ROWS[entry["row"]].size if along == "batch" else entry["batch"] == 32


def _shown(entry: Entry | None) -> str:
    if entry is None:
        return ""
    if "wall" not in entry:
        return "too slow" if entry["missing"].startswith(("over", "skipped")) else "failed"
    wrong = entry.get("off", 0) + entry.get("failed", 0)
    return ms(entry["wall"]["median"]) + (f" ({wrong} wrong)" if wrong else "")


def write(out: Path, about: str, entries: list[Entry], versions: dict[str, str]) -> None:
    """`layers.md`, `layers.json`, `layers.svg` from what is there so far."""
    by_cell: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        by_cell.setdefault((entry["row"], entry["n"], entry["batch"]), []).append(entry)
    headline = [cell_table(cell) for cell in by_cell.values() if cell[0]["headline"]]
    single = [cell for (row, n, batch), cell in by_cell.items() if batch == 1 and n == ROWS[row].size]
    alone = [e for cell in single for e in cell if SYSTEMS[e["system"]].alone and "wall" in e]
    parts = [f"# {about.strip()}", harness.described(versions)]
    if table := ratios(entries):
        parts += ["## In short", harness.BEGIN, table, harness.END]
    if alone:
        calls = [[e["row"], e["system"], f"{1e6 * e['wall']['median']:.2f}"] for e in alone]
        parts += [
            "## One call within a compiled loop",
            "One program, forward and backward, 200 times within one compiled function.",
            harness.markdown(("row", "system", "µs a call"), calls),
        ]
    parts += ["## Rows", *headline]
    if table := sweep(entries, "batch"):
        parts += ["## Batches", table]
    if table := sweep(entries, "n"):
        parts += ["## Sizes", table]
    harness.save(
        out,
        "layers",
        "\n\n".join(parts),
        {"machine": harness.machine(), "versions": versions, "entries": entries},
    )
    picture(out / "layers.svg", entries)


def picture(path: Path, entries: list[Entry]) -> None:
    """Time a sample against the batch, one panel a row; systems by colour, ours in full lines."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in ROWS if any(e["row"] == row and "wall" in e for e in entries)]
    if not rows:
        return
    style = Path(__file__).parents[1] / "docs" / "matplotlibrc"
    with plt.style.context(style):
        plt.rcParams["svg.hashsalt"] = "layers"
        figure, axes = plt.subplots(2, 3, figsize=(9.6, 6.0))
        handles: dict[str, Any] = {}
        for axis, row in zip(axes.flat, rows, strict=False):
            for system, line in _lines(entries).items():
                points = sorted(
                    (e["batch"], 1e6 * e["wall"]["median"] / e["batch"]) for e in entries
                    if e["row"] == row and e["system"] == system and "wall" in e and _along(e, "batch")
                )  # fmt: skip
                if points:
                    (handles[system],) = axis.plot(*zip(*points, strict=True), marker="o", ms=4, **line)
            axis.set(xscale="log", yscale="log", title=f"{row}: n = {ROWS[row].size}", xlabel="batch")
        for axis in axes[:, 0]:
            axis.set_ylabel("µs a sample, forward and backward")
        for axis in axes.flat[len(rows) :]:
            axis.axis("off")
        place = {"loc": "center left"} if len(rows) < len(axes.flat) else {"loc": "best"}
        axes.flat[-1].legend(handles.values(), handles.keys(), **place)
        harness.draw(figure, path)
        plt.close(figure)


def _lines(entries: list[Entry]) -> dict[str, dict[str, Any]]:
    """The systems of the picture and their lines: ours full, peers dashed, Moreau dotted."""
    timed = [s for s in SYSTEMS if any(e["system"] == s and "wall" in e for e in entries)]
    common = [s for s in ("decigrad", "decigrad, active-set, jit") if s in timed]
    own = common or [s for s in timed if SYSTEMS[s].kind == "own"][:1]
    shown = own + [s for s in timed if SYSTEMS[s].kind != "own" and not SYSTEMS[s].alone]
    style = {"own": ("-", 2.2), "peer": ("--", 1.3), "Moreau": (":", 1.8)}
    lines, count = {}, dict.fromkeys(style, 0)
    for system in shown:
        kind = SYSTEMS[system].kind
        dash, width = style[kind]
        lines[system] = {"linestyle": dash, "linewidth": width, "color": f"C{count[kind] % 6}"}
        count[kind] += 1
    return lines
