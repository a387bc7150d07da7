"""The compiled active set against DAQP and HiGHS on random and degenerate programs.

    python -m benchmarks.fuzz [--count 100000] [--seed 0] [--out benchmarks/tables]

Programs are those of the tests (`tests/solvers/programs.py`: dense, bounded, low-rank, semidefinite, badly
scaled, redundant, degenerate, weakly active, linear, tied, ...), some of random size, in three variants: as
they are; with all data but the curvature rounded to integers, which makes ties and constraints that meet; and
with one constraint that some samples cannot keep. A sample is a mismatch where

- the status is not that of DAQP (of HiGHS, for a linear program);
- the objective differs by more than 1e-8 relative, or, where the solution is unique, the decision by 1e-6;
- the optimality conditions are violated by more than 1e-9;
- the adjoint of a random cotangent differs from that of the general linear algebra (NumPy) by 1e-6.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from solvers.programs import FAMILIES, LINEAR  # noqa: E402

from decigrad import native  # noqa: E402
from decigrad.kkt import pack  # noqa: E402
from decigrad.kkt.solution import _solve_general  # noqa: E402
from decigrad.program import Dense, QuadraticProgram, RawResult, Status  # noqa: E402
from decigrad.solvers import DAQP, ActiveSet, HiGHS  # noqa: E402
from decigrad.solvers.verification import Curvature, curvature, kkt_residual  # noqa: E402

BATCH = 50
SIZED = {"simplex", "low_rank", "boxed", "tied", "near_bounds", "degenerate", "weakly_active", "boxed_rows"}
VARIANTS = ("as it is", "integers", "clash")


@dataclass
class Found:
    """What one family and variant came to."""

    family: str
    variant: str
    samples: int = 0
    solved: int = 0
    by_the_core: int = 0
    status: int = 0
    objective: int = 0
    decision: int = 0
    optimality: int = 0
    adjoint: int = 0
    worst_objective: float = 0.0
    worst_decision: float = 0.0
    worst_residual: float = 0.0
    worst_adjoint: float = 0.0

    @property
    def mismatches(self) -> int:
        return self.status + self.objective + self.decision + self.optimality + self.adjoint


def draw(family: str, variant: str, rng: np.random.Generator) -> QuadraticProgram:
    """A batch of a family, varied."""
    size = {"n": int(rng.integers(3, 16))} if family in SIZED else {}
    p = FAMILIES[family](rng, BATCH, **size)
    if variant == "integers":
        whole = {name: np.round(getattr(p, name)) for name in ("q", "b", "h", "lb", "ub")}
        matrices = {name: Dense(np.round(2 * getattr(p, name).matrix)) for name in ("A", "G")}
        return replace(p, **whole, **matrices)
    if variant == "clash":  # a row between what some samples can keep and what they cannot
        row = rng.standard_normal((1, 1, p.n))
        G = np.concatenate([p.G.matrix, np.broadcast_to(row, (len(p.G.matrix), 1, p.n))], axis=1)
        h = np.concatenate(
            [np.broadcast_to(p.h, (BATCH, p.h.shape[1])), rng.normal(0, 3, (BATCH, 1))], axis=1
        )
        return replace(p, G=Dense(G), h=h)
    return p


def compare(p: QuadraticProgram, found: Found, rng: np.random.Generator) -> None:
    """Add a batch to what was found."""
    raw = ActiveSet(threads=1)(p)
    other: RawResult = HiGHS()(p) if p.linear else DAQP()(p)
    active, fixed = np.zeros(raw.active.shape, bool), np.zeros(raw.fixed.shape, np.int8)
    shift = 1e-3 if p.linear else 0.0
    verdict = native.solve(p, active, fixed, warm=False, limit=10_000, shift=shift, threads=1)[4]
    good = (raw.status == Status.OPTIMAL) & (other.status == Status.OPTIMAL)
    found.samples += BATCH
    found.solved += int(good.sum())
    found.by_the_core += int((verdict == native.OPTIMAL).sum())
    found.status += int((raw.status != other.status).sum())
    if not good.any():
        return
    part, mine, theirs = p.take(good), _taken(raw, good), _taken(other, good)
    value, true = part.objective(mine.x), part.objective(theirs.x)
    gap = np.abs(value - true) / (1 + np.abs(true))
    residual = kkt_residual(part, mine.x, mine.y, mine.z, mine.w)
    found.objective += int((gap > 1e-8).sum())
    found.optimality += int((residual > 1e-9).sum())
    found.worst_objective = max(found.worst_objective, float(gap.max()))
    found.worst_residual = max(found.worst_residual, float(residual.max()))
    if p.linear or (curvature(p.P) != Curvature.DEFINITE).any():
        return
    away = np.abs(mine.x - theirs.x).max(1) / (1 + np.abs(theirs.x).max(1))
    found.decision += int((away > 1e-6).sum())
    found.worst_decision = max(found.worst_decision, float(away.max()))
    rhs = pack(rng.standard_normal(mine.x.shape), *(np.zeros_like(a) for a in (mine.y, mine.z, mine.w)))
    kz, kw = (np.where(held, 0.0, np.inf) for held in (mine.active, mine.fixed != 0))
    one, known = native.sensitivity(part, mine.active, mine.fixed, rhs, 1)
    with np.errstate(all="ignore"):
        two = _solve_general(part, kz, kw, rhs[:, None], 0.0)[0][:, 0]
    error = np.abs(one - two).max(1) / (1 + np.abs(two).max(1))
    error = np.where(known == 0, 0.0, error)
    found.adjoint += int((error > 1e-6).sum())
    found.worst_adjoint = max(found.worst_adjoint, float(error.max()))


def _taken(raw: RawResult, index: np.ndarray) -> RawResult:
    return RawResult(**{name: value[index] for name, value in vars(raw).items()})


def run(count: int, seed: int = 0) -> Iterator[Found]:
    """All families and variants, `count` samples in all (rounded up to whole batches)."""
    kinds = [(family, variant) for family in FAMILIES for variant in VARIANTS]
    batches = -(-count // (BATCH * len(kinds)))
    for number, (family, variant) in enumerate(kinds):
        found, rng = Found(family, variant), np.random.default_rng([seed, number])
        for _ in range(batches):
            compare(draw(family, variant, rng), found, rng)
        yield found


def table(found: list[Found]) -> str:
    """A Markdown table."""
    headers = [
        "family", "variant", "samples", "solved", "by the core", "mismatches", "worst objective", "decision",
        "optimality", "adjoint",
    ]  # fmt: skip
    rows = [headers, ["---"] * len(headers)]
    for f in found:
        worst = (f.worst_objective, f.worst_decision, f.worst_residual, f.worst_adjoint)
        counts = (f.samples, f.solved, f.by_the_core, f.mismatches)
        rows.append([f.family, f.variant, *map(str, counts), *(f"{w:.0e}" for w in worst)])
    sums = [sum(getattr(f, n) for f in found) for n in ("samples", "solved", "by_the_core", "mismatches")]
    rows.append(["all", "", *map(str, sums), "", "", "", ""])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    """Run, print, and write `fuzz.json` and `fuzz.md`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tables")
    options = parser.parse_args()
    began, found = time.perf_counter(), []
    for one in run(options.count, options.seed):
        found.append(one)
        print(f"{one.family}, {one.variant}: {one.mismatches} mismatches in {one.samples}", flush=True)
    text = table(found)
    print(f"{text}\n{time.perf_counter() - began:.0f} s, linear families: {', '.join(LINEAR)}")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fuzz.md").write_text(f"# {(__doc__ or '').strip()}\n\n{text}\n", encoding="utf-8")
    figures = json.dumps([asdict(f) for f in found], indent=1)
    (options.out / "fuzz.json").write_text(figures + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
