"""What the tutorial leaves out: its score, the intercept, active bounds, chance, networks, more data."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import decigrad as dg
from decigrad.cli._reproduction import Part, Recipe, allocation_recipe, vector
from decigrad.cli._story import Story
from decigrad.evaluation import ComparisonData, Method, figures
from decigrad.evaluation.statistics import format_estimate, mean_and_error, signed
from decigrad.losses import LeastSquares, Regret
from decigrad.problems import allocation

TUTORIAL = "tutorial's recipe"
BARE = "two-stage, no bias"
DEFAULT = "decision-focused"
TEST_SEED = 10_000
"""Test sets of the repeated comparison are drawn from seeds beyond this one."""


# --------------------------------------------------------------------------------------------- one seed


def full_regret(story: Story, part: Part) -> None:
    """Regret on what the decisions minimize."""
    story.section("The score, in full")
    story.text(
        "The tutorial scores a decision by c·x, but its decisions minimize c·x + ε‖x‖². So the decision "
        "that is optimal for the true costs is not the best one under the score, and its *regret* can be "
        "negative: a predictor can win by exaggerating cost differences, which pushes decisions to the "
        "corners. Regret on the full objective is never negative, and zero only for an optimal decision. It "
        "is what `dg.losses.Regret()` trains and `dg.evaluate` measures unless another cost is given."
    )
    rows = []
    for name, full in (("c·x, as in the tutorial", False), ("c·x + ε‖x‖², in full", True)):
        before, after = (part.regret(method, full=full) for method in ("two-stage", "trained"))
        below = " and ".join(str(int((regret < -1e-9).sum())) for regret in (before, after))
        rows.append([name, f"{before.mean():.4f}", f"{after.mean():.4f}", below])
    story.table(["regret counts", "two-stage", "trained", "negative instances"], rows)
    before, after = (part.regret(method, full=True).mean() for method in ("two-stage", "trained"))
    story.text(
        f"The same training, counted in full: {before:.4f} → {after:.4f}. And this is one draw of 15 test "
        "instances; section 5 takes more."
    )
    story.figure(
        figures.regret_scatter(
            part.regret("two-stage", full=True), part.regret("trained", full=True), method="trained"
        ),
        "Regret on the full objective, instance by instance: below the diagonal training helped.",
    )
    gains = part.regret("two-stage", full=True) - part.regret("trained", full=True)
    order = np.argsort(gains)
    chosen = {"largest gain": order[-1], "median": order[len(order) // 2], "largest loss": order[0]}
    rows_of = list(chosen.values())
    story.figure(
        figures.decision_bars(
            *(part.decisions[method][rows_of] for method in ("two-stage", "trained", "oracle")),
            labels=["x₁", "x₂", "x₃"],
            titles=[f"{word} (instance {i})" for word, i in chosen.items()],
            names=("two-stage", "trained", "optimal"),
        ),
        "Decisions before and after training, beside the optimal ones.",
    )


def intercept(story: Story, part: Part) -> None:
    """The predictor that the tutorial should have compared with."""
    story.section("An intercept")
    recipe = part.recipe
    train, test = recipe.dataset(part.train), recipe.dataset(part.test)
    with_bias = dg.fit(dg.Linear(), recipe.layer, train, LeastSquares()).predictor
    judged = dg.evaluate(with_bias, recipe.layer, test)
    story.text(
        "The tutorial's costs are centred on 1, its predictor has no intercept, so it must explain the 1 by "
        "the features. Most of the *higher prediction error* that decision-focused training is said to "
        "accept comes from there. `dg.Linear()` has an intercept; `dg.Linear(bias=False)` is the tutorial's."
    )
    error = judged.summary()["mse"]
    rows = [
        [name, f"{part.test_error(method):.3f}", f"{part.regret(method, full=True).mean():.4f}"]
        for name, method in (("two-stage, no intercept", "two-stage"), ("trained, no intercept", "trained"))
    ]
    rows.append(["two-stage, intercept", f"{error:.3f}", f"{judged.mean_regret:.4f}"])
    best = {"test MSE": "min", "full regret": "min"}
    story.table(["predictor", "test MSE", "full regret"], rows, best=best)
    before = part.regret("two-stage", full=True).mean()
    story.text(
        f"The error falls from {part.test_error('two-stage'):.3f} to {error:.3f}. The regret does not follow "
        f"it: {before:.4f} → {judged.mean_regret:.4f}, because decisions depend on cost *differences* only. "
        "A prediction error says little about decisions, in either direction."
    )


def active_bounds(story: Story, part: Part) -> None:
    """How often bounds are active, and that the derivative is exact where they are."""
    story.section("Gradients at active bounds")
    recipe = part.recipe
    x = part.descent.x
    free = np.sum((x > 1e-9) & (x < 1 - 1e-9), axis=1)
    bound, vertex = int(np.sum(free < 3)), int(np.sum(free == 0))
    story.text(
        f"The tutorial chooses ε so that solutions stay inside the bounds. They do not: {bound} of its "
        f"{len(free)} training solves have an active bound, and {vertex} of these are vertices. It also says "
        "that an active bound means a zero gradient. That is true of a vertex alone: the variables that "
        "remain free still trade against each other, and their derivative is exact."
    )
    inside = np.where(x > 1e-9, x, 1.0).min(axis=1)
    candidates = np.flatnonzero(free == 2)
    if not candidates.size:
        story.text("With this seed no training solve has exactly one active bound to look at.")
        return
    index = int(candidates[np.argmax(inside[candidates])])
    cost = part.descent.costs[index]
    solution = recipe.layer.model.solve({recipe.parameter: cost})
    exact = solution.sensitivity_matrix()
    measured = central_differences(recipe, cost)
    worst = float(np.abs(exact - measured).max())
    story.text(f"Training solve {index}, costs ({vector(cost, 4)}), has x* = ({vector(solution.x['x'], 4)}):")
    # + 0.0 turns a negative zero into zero.
    shown = [np.round(matrix, 4) + 0.0 for matrix in (exact, measured)]
    rows = [[f"x{i + 1}", *(vector(matrix[i], 4) for matrix in shown)] for i in range(len(exact))]
    story.table(["row of dx*/dc", "implicit derivative", "central differences"], rows)
    story.verdict(f"Largest difference of the two matrices: {worst:.1e}.", "gain" if worst < 1e-6 else "loss")
    story.figure(
        figures.sensitivity_heatmap(exact, variables=["x₁", "x₂", "x₃"], parameters=["c₁", "c₂", "c₃"]),
        "The derivative with one bound active: the bound variable stays, the other two trade.",
    )


def central_differences(recipe: Recipe, cost: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """dx*/dc [n, n] by re-solving at c ± step in every coordinate."""
    shifts = step * np.eye(len(cost))
    return ((recipe.decide(cost + shifts) - recipe.decide(cost - shifts)) / (2 * step)).T


# ------------------------------------------------------------------------------------------- many seeds


def many_seeds(story: Story, seeds: int, test: int) -> None:
    """The tutorial's recipe and the library's default over many draws, paired with two-stage."""
    story.section(f"Not one seed but {seeds}")
    story.text(
        f"Every seed draws 30 training samples as the tutorial does, and {test} fresh test instances. Regret "
        "is on the full objective. The *tutorial's recipe* trains on c·x, without intercept, for ten epochs. "
        "The *decision-focused* predictor is `dg.fit` as it comes: an intercept, full regret, and a pull "
        "towards two-stage whose weight is chosen by cross-validation, two-stage itself among the choices."
    )
    recipe = allocation_recipe()
    comparison = dg.compare(
        recipe.layer,
        functools.partial(_draw, recipe, 30, test),
        methods={
            "two-stage": "two-stage",
            BARE: Method(LeastSquares(), dg.Linear(bias=False)),
            TUTORIAL: Method(recipe.loss, dg.Linear(bias=False), tuple(recipe.options.items())),
            DEFAULT: "regret",
        },
        seeds=seeds,
    )
    data = comparison.data
    rows = []
    for method in data.methods:
        gains, against, won = data.gain_by_seed(method), "", ""
        if method != data.baseline:
            against = f"{signed(gains.mean())} ± {mean_and_error(gains).error:.1f}"
            won = f"{int((gains > 0).sum())} of {len(gains)}"
        error, regret = (data.estimate(method, key) for key in ("mse", "mean_regret"))
        rows.append([method, _shown(error), _shown(regret), against, won])
    story.table(
        ["method", "test MSE", "full regret", "gain, %", "seeds won"],
        rows,
        caption="Mean ± standard error over seeds. Gain over two-stage, paired by seed: positive is better.",
    )
    bare = ComparisonData({BARE: data.runs[BARE], TUTORIAL: data.runs[TUTORIAL]}, baseline=BARE)
    for part, method in ((bare, TUTORIAL), (data, DEFAULT)):
        verdict = part.verdict(method)
        story.verdict(verdict.text, verdict.kind)
    by_seed = {m: data.gain_by_seed(m) for m in data.challengers}
    story.figure(
        figures.gain_by_seed(by_seed, {m: data.gain(m) for m in by_seed}),
        "Gain over two-stage with an intercept, seed by seed.",
    )


def _draw(recipe: Recipe, train: int, test: int, seed: int) -> tuple[dg.Dataset, dg.Dataset]:
    return (
        recipe.dataset(allocation.allocation_samples(train, seed)),
        recipe.dataset(allocation.allocation_samples(test, TEST_SEED + seed)),
    )


def _shown(estimate: Any) -> str:
    return format_estimate(estimate.mean, estimate.error)


# --------------------------------------------------------------------------------------- networks, data


def end_to_end(story: Story, part: Part) -> None:
    """`jax.grad` of mean regret through a network and the layer, for a whole batch at once."""
    story.section("A network, and jax.grad end to end")
    story.text(
        "A layer is a function that JAX differentiates, so predictor, solver and regret are one expression:"
    )
    story.text("`jax.grad(lambda net: regret(layer(jax.vmap(net)(features)), costs).mean())(net)`")
    recipe = part.recipe
    data, loss = recipe.dataset(part.train), Regret()
    outputs = ((recipe.parameter, (3,)),)
    network = dg.MLP(hidden=(64,)).init(data, outputs, seed=0)
    optimum = recipe.cost(recipe.decide(part.train[1]), part.train[1], loss)

    @jax.jit
    def mean_regret(net: Any) -> Any:
        decisions = recipe.layer(jax.vmap(net)(part.train[0]))["x"]
        return (recipe.cost(decisions, part.train[1], loss) - optimum).mean()

    differentiate = jax.jit(jax.value_and_grad(mean_regret))
    value, gradient = jax.block_until_ready(differentiate(network))
    clock = time.perf_counter()
    jax.block_until_ready(differentiate(network))
    seconds = time.perf_counter() - clock
    slope, measured, count = _directional(mean_regret, network, gradient)
    story.table(
        ["mean regret of an untrained network (64 hidden units)", f"{float(value):.4f}"],
        [
            ["weights differentiated", f"{count}"],
            ["samples, each one solve, in the batch", f"{len(part.train[0])}"],
            ["value and gradient, compiled", f"{1000 * seconds:.1f} ms"],
            ["slope in a random direction, jax.grad", f"{slope:.8f}"],
            ["slope in that direction, central differences", f"{measured:.8f}"],
        ],
    )


def _directional(function: Any, at: Any, gradient: Any, step: float = 1e-6) -> tuple[float, float, int]:
    """Slope along a random unit direction by the gradient and by differences, and the number of weights."""
    leaves, structure = jax.tree_util.tree_flatten(at)
    rng = np.random.default_rng(0)
    trained = [isinstance(leaf, jax.Array) for leaf in leaves]
    direction = [rng.normal(size=np.shape(a)) * moves for a, moves in zip(leaves, trained, strict=True)]
    norm = np.sqrt(sum((d**2).sum() for d in direction))

    def moved(t: float) -> Any:
        shifted = [jnp.asarray(a + t * d / norm) for a, d in zip(leaves, direction, strict=True)]
        return jax.tree_util.tree_unflatten(structure, shifted)

    parts = zip(jax.tree_util.tree_leaves(gradient), direction, strict=True)
    slope = sum(float(np.sum(np.asarray(g) * d)) for g, d in parts) / norm
    measured = (float(function(moved(step))) - float(function(moved(-step)))) / (2 * step)
    return float(slope), measured, sum(a.size for a, moves in zip(leaves, trained, strict=True) if moves)


def learning_curve(story: Story, sizes: Sequence[int], seeds: int, test: int) -> None:
    """Regret by training samples for a linear predictor and a network, two-stage and decision-focused."""
    story.section("More data, and a predictor that can use it")
    story.text(
        "The true costs contain products of features, which a linear predictor cannot express and a network "
        f"can. Mean regret on the full objective over {seeds} seeds, {test} test instances each, at a fixed "
        "pull towards two-stage (proximal weight 0.1):"
    )
    recipe = allocation_recipe()
    predictors = {"linear": dg.Linear(), "network": dg.MLP(hidden=(32,))}
    # A fixed pull towards two-stage: no candidates to train, so the curve takes a tenth of the time.
    options = (("selection", None), ("proximal_weight", 0.1))
    methods: dict[str, str | Method] = {"two-stage": "two-stage", DEFAULT: Method(Regret(), options=options)}
    curves: dict[str, np.ndarray] = {}
    for name, predictor in predictors.items():
        columns = []
        for size in sizes:
            draw = functools.partial(_draw, recipe, size, test)
            data = dg.compare(
                recipe.layer, draw, methods=methods, seeds=seeds, predictor=predictor, epochs=40
            ).data
            columns.append([data.values(method, "mean_regret") for method in methods])
        for k, method in enumerate(methods):
            curves[f"{name}, {method}"] = np.stack([column[k] for column in columns], axis=1)
    rows = [
        [name, *(_shown(mean_and_error(column)) for column in values.T)] for name, values in curves.items()
    ]
    heads = [f"{size} samples" for size in sizes]
    story.table(["predictor, training", *heads], rows, caption="Mean regret ± standard error over seeds.")
    story.figure(
        figures.learning_curve(list(sizes), curves, baseline="linear, two-stage"),
        "Mean regret by number of training samples.",
    )
