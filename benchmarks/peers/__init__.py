"""Every system that is timed, behind one protocol: `build(program)` gives `run(costs) -> (x, gradient)`.

`run` takes costs [B, n] as NumPy, decides, and pulls Σ x² back: d(Σ x²)/dc, [B, n]. Tolerances are as tight
as each package takes them, since a gradient at a loose tolerance belongs to another active set. Packages
are imported by the builders, in a process of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.peers import own, through_discopt, through_jax, through_torch
from benchmarks.peers.own import CALLS
from benchmarks.programs import Array, Cell, Program

Run = Callable[[Array], tuple[Array, Array]]


@dataclass(frozen=True)
class System:
    """One system.

    Attributes:
        kind: "own", "peer", or "Moreau", which has a line of its own in the targets.
        compiles: its first call may take a minute longer than the next ones.
        alone: it is measured on a single program of row a, many times within one compiled loop.
        first: it solves one by one in Python: it is given so many of the batch, which stand for all.
        steps: cells of other than a row's own batch and size leave it out if False.
    """

    build: Callable[[Program], Run]
    kind: str = "peer"
    compiles: bool = False
    alone: bool = False
    first: int = 0
    steps: bool = True

    def takes(self, cell: Cell, headline: bool) -> bool:
        """Whether a cell is for it."""
        if self.alone:
            return (cell.row, cell.batch, cell.n) == ("a", 1, 3)
        return self.steps or headline

    def given(self, cell: Cell) -> int:
        """Programs of the cell that it is given."""
        return min(cell.batch, self.first or cell.batch)

    def scale(self, cell: Cell) -> float:
        """What its seconds are multiplied with to be those of the cell's batch."""
        return 1.0 / CALLS if self.alone else cell.batch / self.given(cell)


SYSTEMS = {
    "decigrad": System(own.fit("auto"), "own", compiles=True),
    "decigrad, active-set": System(own.fit("active-set"), "own"),
    "decigrad, daqp": System(own.fit("daqp"), "own", steps=False),
    "decigrad, interior-point": System(own.fit("interior-point"), "own", compiles=True, steps=False),
    "decigrad, jit": System(own.jit("auto"), "own", compiles=True),
    "decigrad, active-set, jit": System(own.jit("active-set"), "own", compiles=True),
    "decigrad, daqp, jit": System(own.jit("daqp"), "own", compiles=True, steps=False),
    "decigrad, interior-point, jit": System(own.jit("interior-point"), "own", compiles=True, steps=False),
    "decigrad, active-set, within jit": System(own.loop("active-set"), "own", compiles=True, alone=True),
    "decigrad, interior-point, within jit": System(
        own.loop("interior-point"), "own", compiles=True, alone=True
    ),
    "qpth": System(through_torch.qpth),
    "cvxpylayers": System(through_torch.cvxpylayers),
    "proxsuite": System(through_torch.proxsuite),
    "qpax, explicit": System(through_jax.qpax("e"), compiles=True, steps=False),
    "qpax, implicit": System(through_jax.qpax("i"), compiles=True),
    "Moreau": System(through_jax.moreau_direct, "Moreau"),
    "Moreau, jit": System(through_jax.moreau, "Moreau", compiles=True),
    "Moreau, within jit": System(through_jax.moreau_loop, "Moreau", compiles=True, alone=True),
    "discopt": System(through_discopt.discopt, first=4, steps=False),
}

PACKAGES = (
    "jax",
    "numpy",
    "daqp",
    "torch",
    "qpth",
    "cvxpylayers",
    "diffcp",
    "clarabel",
    "proxsuite",
    "qpax",
    "moreau",
    "discopt",
)
