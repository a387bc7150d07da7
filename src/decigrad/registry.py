"""The methods of decision-focused learning by name: what each needs, and how `compare` trains it.

    print(dg.methods())            # the table
    dg.compare(layer, train, test, methods=["two-stage", "spo+", "pfyl"])

A method is a loss, a gradient of the decision, or both; for settings other than the defaults pass the loss
itself, or a `Method`. "auto" tries a few and keeps the one with the least cross-validated regret (`Auto`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from decigrad import losses
from decigrad.errors import ModelError
from decigrad.gradients import (
    IMLE,
    BlackBox,
    DavisYin,
    FrankWolfe,
    Identity,
    Perturbed,
    RelaxationGradient,
    Relaxed,
    Smoothed,
)
from decigrad.losses import Regret
from decigrad.solvers.highs import HiGHS

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer


@dataclass(frozen=True)
class Method:
    """One way to train: a loss, a predictor, the gradient of the decision, and options of `fit`.

    Args:
        loss: what is minimized, a `Loss`; or `Auto()`.
        predictor: in place of the comparison's.
        options: of `fit`, as pairs.
        gradient: in place of the layer's (see `decigrad.gradients`).
    """

    loss: Any
    predictor: Any = None
    options: tuple[tuple[str, Any], ...] = ()
    gradient: Any = None

    def layer(self, layer: DecisionLayer) -> DecisionLayer:
        """The layer that it trains through."""
        return layer if self.gradient is None else layer.with_gradient(self.gradient)


@dataclass(frozen=True)
class Entry:
    """A row of the table of methods."""

    name: str
    family: str
    needs: str
    """What of the truth: "costs" (true parameters), or "decisions" (optimal decisions alone)."""
    solves: str
    """Solver calls for a sample and step, beside one to label it."""
    decides_on: str
    """Which models: "costs" (objective affine in the prediction), "any"."""
    source: str
    make: Callable[[], Method]


def _loss(make: Callable[[], Any]) -> Callable[[], Method]:
    return lambda: Method(make())


def _gradient(make: Callable[[], Any]) -> Callable[[], Method]:
    return lambda: Method(Regret(), gradient=make())


def _regularized(make: Callable[[], Any]) -> Callable[[], Method]:
    return lambda: Method(losses.FenchelYoung(), gradient=make())


_ELMACHTOUB = "Elmachtoub and Grigas 2022"
_MULAMBA, _MANDI = "Mulamba et al. 2021", "Mandi et al. 2022"
_BERTHET, _DALLE = "Berthet et al. 2020", "Dalle et al. 2022"
_NIEPERT, _TANG = "Niepert et al. 2021", "Tang and Khalil 2024"

METHODS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("two-stage", "prediction", "costs", "0", "any", "least squares", _loss(losses.LeastSquares)),
        Entry("mse", "prediction", "costs", "0", "any", "by gradient", _loss(losses.MSE)),
        Entry("quantile", "prediction", "costs", "0", "any", "Koenker and Bassett 1978",
              _loss(losses.Quantile)),
        Entry("regret", "exact", "costs", "1", "any", "Amos and Kolter 2017", _loss(Regret)),
        Entry("spo+", "surrogate", "costs", "1", "costs", _ELMACHTOUB, _loss(losses.SPOPlus)),
        Entry("spo+ relaxed", "surrogate", "costs", "1 relaxed", "costs", "Mandi et al. 2020",
              lambda: Method(losses.SPOPlus(), gradient=Relaxed())),
        Entry("pg", "surrogate", "costs", "2", "costs", "Gupta and Huang 2024",
              _loss(lambda: losses.PerturbationGradient(0.1, "central"))),
        Entry("cilo", "surrogate", "costs", "5", "costs", "after Gupta and Huang 2024", _loss(losses.CILO)),
        Entry("structured-hinge", "margin", "decisions", "1", "costs", "Tsochantaridis et al. 2005",
              _loss(losses.StructuredHinge)),
        Entry("imitation", "margin", "decisions", "8", "costs", "Vlastelica et al. 2020",
              lambda: Method(losses.Imitation(), gradient=Perturbed())),
        Entry("pfyl", "perturbed", "decisions", "1", "costs", _BERTHET,
              _loss(lambda: losses.PerturbedFenchelYoung(0.5))),
        Entry("pfyl-multiplicative", "perturbed", "decisions", "1", "costs", _DALLE,
              _loss(lambda: losses.PerturbedFenchelYoung(0.5, 1, "multiplicative"))),
        Entry("dpo", "perturbed", "costs", "8", "costs", _BERTHET, _gradient(Perturbed)),
        Entry("dpo-multiplicative", "perturbed", "costs", "8", "costs", _DALLE,
              _gradient(lambda: Perturbed(kind="multiplicative"))),
        Entry("imle", "perturbed", "costs", "2", "costs", _NIEPERT, _gradient(IMLE)),
        Entry("aimle", "perturbed", "costs", "4", "costs", "Minervini et al. 2023",
              _gradient(lambda: IMLE(0.3, 0.3, adaptive=True))),
        Entry("sfge", "perturbed", "costs", "4", "any", "Silvestri et al. 2024", _loss(losses.ScoreFunction)),
        Entry("qptl", "regularized", "costs", "1 relaxed", "any", "Wilder et al. 2019",
              _gradient(lambda: Smoothed(1.0, relative=True))),
        Entry("intopt", "regularized", "costs", "1 relaxed", "any", "Mandi and Guns 2020",
              _gradient(lambda: Smoothed(0.1, "barrier", relative=True))),
        Entry("dys", "regularized", "costs", "1 relaxed", "any", "McKenzie et al. 2024",
              _gradient(DavisYin)),
        Entry("relaxation", "regularized", "costs", "1, 1 relaxed", "any", "after Wilder et al. 2019",
              _gradient(RelaxationGradient)),
        Entry("fenchel-young", "regularized", "decisions", "1 relaxed", "costs", "Blondel et al. 2020",
              _regularized(lambda: Smoothed(0.3, relative=True))),
        Entry("fenchel-young-entropy", "regularized", "decisions", "1 relaxed", "costs",
              "Blondel et al. 2020", _regularized(lambda: Smoothed(0.1, "entropy", relative=True))),
        Entry("frank-wolfe", "regularized", "decisions", "up to 20", "costs", _DALLE,
              _regularized(lambda: FrankWolfe(0.3))),
        Entry("dbb", "black box", "costs", "2", "costs", "Vlastelica et al. 2020", _gradient(BlackBox)),
        Entry("nid", "black box", "costs", "1", "costs", "Sahoo et al. 2023", _gradient(Identity)),
        Entry("straight-through", "black box", "costs", "1", "costs", "Bengio et al. 2013",
              _gradient(lambda: Identity("none"))),
        Entry("nce", "pool", "decisions", "0", "costs", _MULAMBA, _loss(losses.NCE)),
        Entry("map", "pool", "costs", "0", "costs", _MULAMBA, _loss(losses.MAP)),
        Entry("pointwise", "pool", "costs", "0", "costs", _MANDI, _loss(losses.PointwiseRank)),
        Entry("pairwise", "pool", "costs", "0", "costs", _MANDI, _loss(losses.PairwiseRank)),
        Entry("listwise", "pool", "costs", "0", "costs", _MANDI, _loss(losses.ListwiseRank)),
        Entry("cave", "geometric", "decisions", "0", "costs", _TANG, _loss(losses.CaVE)),
        Entry("cave+", "geometric", "decisions", "0", "costs", _TANG, _loss(lambda: losses.CaVE(inner=0.2))),
        Entry("cave-hybrid", "geometric", "decisions", "0", "costs", _TANG,
              _loss(lambda: losses.CaVE(inner=0.2, alpha=0.3))),
        Entry("adjacent-vertices", "geometric", "costs", "0", "costs", "Berden et al. 2025",
              _loss(losses.AdjacentVertices)),
    )
}  # fmt: skip
"""All methods, by name."""


class MethodTable(tuple[Entry, ...]):
    """The methods, printed as a table; an ordinary tuple of entries besides."""

    def __str__(self) -> str:
        head = ("method", "family", "needs true", "solves", "prediction in", "source")
        rows = [(e.name, e.family, e.needs, e.solves, e.decides_on, e.source) for e in self]
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [head, *rows]
        ]
        return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])

    __repr__ = __str__


@dataclass(frozen=True)
class Auto:
    """Two-stage and a short list of methods; the one with the least held-out regret is refitted on all data.

    All candidates see the same folds, so their held-out decisions are paired: a later one on the list takes
    the place of the best before it where it is better by `caution` standard errors of the difference. One
    that does not beat two-stage by the selection's own caution counts as two-stage. Those that do not fit
    the layer are passed over. With `HoldOut` the winner is what was trained on the part. Pass it as
    `fit(..., loss=Auto(...))`, or by name, "auto".

    Args:
        methods: names to try, the most trusted first; by default those of `shortlist`.
        caution: see above.
        cost: of the decision, as in `Regret`; then only methods that can train for it are tried.
        solver_calls: budget of all candidates together, split evenly; selection stops where it is spent (the
            final training comes on top). None: `epochs` alone limits.
    """

    methods: tuple[str, ...] | None = None
    caution: float = 0.5
    cost: Any = None
    solver_calls: int | None = None

    def candidates(self, layer: DecisionLayer) -> dict[str, Method]:
        """The methods in the order in which they are tried."""
        names = shortlist(layer) if self.methods is None else self.methods
        found = {}
        for name in names:
            method = named(name)
            if not method.loss.decides:
                raise ModelError(
                    f"Auto chooses between methods by regret; {name!r} minimizes the prediction error, and "
                    f"two-stage is always among the candidates"
                )
            if self.cost is not None:
                if not hasattr(method.loss, "cost"):
                    continue
                method = replace(method, loss=replace(method.loss, cost=self.cost))
            found[name] = method
        if not found:
            raise ModelError(
                f"Auto: none of {list(names)} trains for another cost; name some that do, such as 'sfge'"
                if names
                else "Auto needs at least one method beside two-stage"
            )
        return found


def shortlist(layer: DecisionLayer) -> tuple[str, ...]:
    """What `Auto` tries, by what the predictions enter.

    An objective with curvature, or predictions in constraints: the exact derivative first. A linear or
    integer program with predicted costs: SPO+, and methods that beat it somewhere on our tables (`map`
    with enough data and few decisions, `nid` on small data, `imle` where items share a predictor); where
    only a general solver knows the integer decisions, those that train without it.
    """
    if layer.form.depends("P", "A", "b", "G", "h", "lb", "ub") & set(layer.predicts):
        return "regret", "sfge"
    if not layer.form.linear:
        return "regret", "spo+"
    if layer.form.integer and isinstance(layer.solver, HiGHS):
        return "spo+ relaxed", "pairwise", "map"
    return "spo+", "map", "nid", "imle"


def named(name: str) -> Method:
    """The method of this name with its defaults.

    Raises:
        ModelError: there is none; the message lists all.
    """
    if name not in METHODS:
        raise ModelError(f"there is no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name].make()


def methods() -> MethodTable:
    """All methods with what each needs: data, solver calls a step, and where the prediction may stand.

    >>> [entry.name for entry in methods() if entry.family == "black box"]
    ['dbb', 'nid', 'straight-through']
    """
    return MethodTable(METHODS.values())
