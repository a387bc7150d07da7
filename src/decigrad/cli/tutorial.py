"""`decigrad tutorial`: the published figures first, then what one seed and its score leave out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from decigrad.cli import _beyond, _published, _reproduction
from decigrad.cli._story import Story
from decigrad.evaluation import figures

if TYPE_CHECKING:
    from rich.console import Console

PUBLISHED_SEED = 42


@dataclass(frozen=True)
class Sizes:
    """How much the repeated parts compute."""

    seeds: int
    test: int
    curve: tuple[int, ...]
    curve_seeds: int


def run(
    *,
    seed: int = PUBLISHED_SEED,
    seeds: int = 30,
    report: Path = Path("tutorial.html"),
    sizes: Sequence[int] | None = None,
    quick: bool = False,
    console: Console | None = None,
) -> bool:
    """Run the tutorial and write its report; True if every published figure was reproduced.

    Arguments:
        seed: of the draws. Only 42 has published figures to compare with; for another, True is returned.
        seeds: of the repeated comparison.
        report: path of the HTML file.
        sizes: training samples of the learning curve.
        quick: fewer seeds, smaller test sets, a shorter curve.
        console: where the text goes; default the terminal.
    """
    if quick:
        amount = Sizes(min(seeds, 2), 200, tuple(sizes or (30, 60)), 2)
    else:
        amount = Sizes(seeds, 1000, tuple(sizes or (30, 100, 300)), 2)
    subtitle = "The discopt tutorial on decision-focused learning, recomputed, and what it leaves out."
    story = Story("decigrad tutorial", subtitle, console)
    with jax.enable_x64(True):
        first, matched = _figures(story, seed)
        _beyond.full_regret(story, first)
        _beyond.intercept(story, first)
        _beyond.active_bounds(story, first)
        _beyond.many_seeds(story, amount.seeds, amount.test)
        _beyond.end_to_end(story, first)
        _beyond.learning_curve(story, amount.curve, amount.curve_seeds, amount.test)
    story.write(report)
    return matched


def _figures(story: Story, seed: int) -> tuple[_reproduction.Part, bool]:
    clock = time.perf_counter()
    reproduction = _reproduction.Reproduction()
    first, second = reproduction.run(seed)
    found = (_reproduction.allocation_figures(first), _reproduction.portfolio_figures(second))
    with_compilation = time.perf_counter() - clock
    clock = time.perf_counter()
    reproduction.run(seed)  # once more, now that everything is compiled
    seconds = time.perf_counter() - clock

    published = seed == PUBLISHED_SEED
    story.section(f"The tutorial's figures, seed {seed}")
    story.text(
        "A linear predictor without intercept maps five features to the costs of three activities. It is "
        "fitted by least squares (*two-stage*), then trained by gradient steps through the optimization "
        "problem (*trained*). The allocation minimizes c·x + ε‖x‖² over shares that add up to one; the "
        "portfolio maximizes r·x − γ‖x‖² over the same set."
    )
    matched = total = 0
    for title, ours, theirs in (
        ("Part 1, allocation", found[0], _published.ALLOCATION),
        ("Part 2, portfolio", found[1], _published.PORTFOLIO),
    ):
        if published:
            rows = [
                [name, value, "the same" if value == theirs[name] else theirs[name]]
                for name, value in ours.items()
            ]
            matched += sum(value == theirs[name] for name, value in ours.items())
            total += len(rows)
            story.table([title, "decigrad", "published"], rows)
        else:
            story.table([title, "decigrad"], [[name, value] for name, value in ours.items()])
    timing = (
        f"Solving, training and scoring both parts, 600 solves with their gradients among it, takes "
        f"{seconds:.2f} s; the first time, with compilation, {with_compilation:.1f} s."
    )
    if published:
        text = f"{matched} of {total} figures agree to the last printed digit. {timing}"
        story.verdict(text, "gain" if matched == total else "loss")
    else:
        story.text(f"Only seed {PUBLISHED_SEED} has published figures to compare with. {timing}")
    story.figure(
        figures.training_curves({"allocation": [{"loss": first.descent.losses}]}),
        "Part 1: mean cost of a decision in each epoch of training.",
    )
    story.figure(
        figures.weight_difference(
            first.weights["two-stage"].T,
            first.weights["trained"].T,
            rows=[f"feature {i}" for i in range(1, 6)],
            columns=[f"activity {i}" for i in range(1, 4)],
            names=("two-stage", "trained"),
        ),
        "Part 1: how training moved the weights.",
    )
    return first, matched == total
