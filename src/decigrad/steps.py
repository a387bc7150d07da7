"""The compiled steps of training: pure functions of a hashable recipe, shared by every `fit` of equal parts.

A recipe is what does not change between fits of the same kind: layer, loss, optimizer, and the predictor's
structure. Data, weights and scalings are arguments, so training the same problem on another seed or fold
compiles nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from decigrad.layer import DecisionLayer
from decigrad.losses import Batch, Loss
from decigrad.predictors import Outputs, named
from decigrad.program import Start
from decigrad.warm import gathered, scattered


@functools.lru_cache(maxsize=64)
def adam(learning_rate: Any) -> optax.GradientTransformation:
    """Adam at a rate or a schedule; one object for each, since optimizers are compared by identity."""
    return optax.adam(learning_rate)


@functools.lru_cache(maxsize=64)
def clipped(optimizer: optax.GradientTransformation, norm: float) -> optax.GradientTransformation:
    """An optimizer of gradients whose global norm is at most `norm`; one object for each."""
    return optax.chain(optax.clip_by_global_norm(norm), optimizer)


def is_trained(leaf: Any) -> bool:
    """Floating-point JAX arrays are trained; NumPy arrays (scalings, say) are constants of the predictor."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.inexact)


@dataclass(frozen=True)
class Static:
    """The leaves of a predictor that are neither trained nor arrays, with its tree structure; hashable."""

    leaves: tuple[Any, ...]
    structure: Any

    @staticmethod
    def split(predictor: Any) -> tuple[Any, Any, Static]:
        """(trained arrays, other arrays, the rest)."""
        trained, rest = eqx.partition(predictor, is_trained)
        arrays, static = eqx.partition(rest, lambda leaf: isinstance(leaf, np.ndarray | jax.Array))
        leaves, structure = jax.tree_util.tree_flatten(static, is_leaf=lambda leaf: leaf is None)
        return trained, arrays, Static(tuple(leaves), structure)

    def join(self, trained: Any, arrays: Any) -> Any:
        """The predictor again."""
        return eqx.combine(trained, arrays, jax.tree_util.tree_unflatten(self.structure, self.leaves))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Context:
    """Arrays that an epoch holds fixed: data, the predictor's untrained arrays, spread of the targets, pool;
    and of the lanes: which decisions of the pool are of a lane's own samples [K, L, 1], the weights that it
    is pulled to, and how strongly [L]."""

    data: Batch
    arrays: Any
    spread: dict[str, Any]
    pool: Any = None
    seen: Any = None
    anchor: Any = None
    pull: Any = None


@dataclass(frozen=True)
class Recipe:
    """The pure functions of training. Lanes [L] and samples [B] lead; `at` is (positions, weights) [L, B]."""

    layer: DecisionLayer
    judging: DecisionLayer
    loss: Loss
    optimizer: optax.GradientTransformation
    outputs: Outputs
    static: Static

    # -------------------------------------------------------------------------------------- shared parts

    def gather(self, context: Context, index: Any, mask: Any, key: Any) -> Batch:
        batch = jax.tree_util.tree_map(lambda a: a.at[index].get(mode="promise_in_bounds"), context.data)
        return replace(
            batch, weight=batch.weight * mask, spread=context.spread, pool=context.pool, seen=context.seen,
            key=key,
        )  # fmt: skip

    def predict(self, context: Context, weights: Any, features: Any) -> dict[str, Any]:
        """[L] weights and features [L, B, ...] to predictions [L, B, *shape]."""

        def lane(w: Any, x: Any) -> dict[str, Any]:
            model = self.static.join(w, context.arrays)
            return jax.vmap(lambda one: named(model(one), self.outputs))(x)

        return jax.vmap(lane)(weights, features)

    def _deviation(self, context: Context, predicted: dict[str, Any], features: Any) -> Any:
        """Mean squared deviation from the anchor by sample, in standard deviations of the targets."""
        origin = jax.lax.stop_gradient(self.predict(context, context.anchor, features))
        total: Any = 0.0
        size = 0
        for name, shape in self.outputs:
            moved = ((predicted[name] - origin[name]) / context.spread[name]) ** 2
            total = total + moved.sum(axis=tuple(range(moved.ndim - len(shape), moved.ndim)))
            size += int(np.prod(shape, dtype=int))
        return total / size

    def _total(
        self, context: Context, batch: Batch, predicted: Any, answers: Any, status: Any
    ) -> tuple[Any, tuple[Any, Any]]:
        """Sum over lanes of the weighted mean loss plus the proximal term; loss by lane, status by sample."""
        value = self.loss.value(self.layer, predicted, answers, batch)
        ok = (status == 0) & (batch.weight > 0)
        weight = batch.weight * ok
        loss = (jnp.where(ok, value, 0.0) * weight).sum(-1) / jnp.maximum(weight.sum(-1), 1e-300)
        near = (self._deviation(context, predicted, batch.features) * batch.weight).sum(-1)
        near = context.pull * near / jnp.maximum(batch.weight.sum(-1), 1e-300)
        return (loss + near).sum(), (loss, jnp.where(batch.weight > 0, status, 0))

    def _stepped(self, weights: Any, state: Any, gradient: Any, sound: Any = True) -> tuple[Any, Any, Any]:
        """A step of the optimizer, and in which lanes [L] it is finite; none in any where one is not."""
        updates, stepped = jax.vmap(self.optimizer.update)(gradient, state, weights)
        moved = optax.apply_updates(weights, updates)
        leaves = [leaf.reshape(len(leaf), -1) for leaf in jax.tree_util.tree_leaves((gradient, moved))]
        sound &= jnp.isfinite(jnp.concatenate(leaves, axis=1)).all(1)
        new, old = (moved, stepped), (weights, state)
        return *jax.tree_util.tree_map(lambda a, b: jnp.where(sound.all(), a, b), new, old), sound

    # ----------------------------------------------------------------------------------- device solvers

    def _answers(
        self, predicted: dict[str, Any], batch: Batch, starts: dict[str, Start | None]
    ) -> tuple[Any, Any, dict[str, Start]]:
        """Decisions for every query inside the trace (zeros where failed), a status by sample, and the active
        sets of the queries with a start."""
        if not self.loss.through:
            predicted = jax.lax.stop_gradient(predicted)
        answers, worst, ended = {}, jnp.zeros(batch.weight.shape, jnp.int32), {}
        for label, query in self.loss.queries(self.layer, predicted, batch).items():
            if (start := starts.get(label)) is None:
                decisions, status = self.layer.traced(query, batch.key)
            else:
                decisions, status, ended[label] = self.layer.traced_from(query, start)
            solved = status == 0
            worst = jnp.maximum(worst, status.reshape(-1, *worst.shape).max(0))
            answers[label] = {
                name: jnp.where(solved.reshape(solved.shape + (1,) * (x.ndim - solved.ndim)), x, 0.0)
                for name, x in decisions.items()
            }
        return answers, worst, ended

    def epoch(
        self, context: Context, weights: Any, state: Any, sets: Any, index: Any, mask: Any, keys: Any
    ) -> tuple[Any, Any, Any, Any, Any, Any]:
        """All steps of one epoch, inside one trace, up to the first that is not finite: weights, state, sets,
        loss [steps, L], status [steps, L, B], and which are finite [steps, L].

        `sets` are the active sets that queries start from, by label (see `warm`); None: cold.
        """

        def objective(weights: Any, batch: Batch, starts: Any) -> Any:
            predicted = self.predict(context, weights, batch.features)
            answers, status, ended = self._answers(predicted, batch, starts)
            total, record = self._total(context, batch, predicted, answers, status)
            return total, (record, ended)

        def step(carry: Any, at: Any) -> Any:
            weights, state, sets, sound = carry
            batch = self.gather(context, *at)
            starts = {label: kept and gathered(kept, at[0]) for label, kept in sets.items()}
            (_, (record, ended)), gradient = jax.value_and_grad(objective, has_aux=True)(
                weights, batch, starts
            )
            kept = {**sets, **{label: scattered(sets[label], at[0], found) for label, found in ended.items()}}
            *moved, sound = self._stepped(weights, state, gradient, sound)
            return (*moved, kept, sound), (*record, sound)

        begin = weights, state, sets, jnp.ones(index.shape[1], bool)
        (weights, state, sets, _), (loss, status, sound) = jax.lax.scan(step, begin, (index, mask, keys))
        return weights, state, sets, loss, status, sound

    # ------------------------------------------------------------------------- host solvers, and judging

    def ask(
        self, context: Context, weights: Any, index: Any, mask: Any, key: Any, loss: Loss
    ) -> tuple[Any, Batch, Any]:
        """Predictions, their batch, and a loss's queries to solve."""
        batch = self.gather(context, index, mask, key)
        predicted = self.predict(context, weights, batch.features)
        return predicted, batch, loss.queries(self.layer, predicted, batch)

    def descend(
        self, context: Context, weights: Any, state: Any, batch: Batch, answers: Any, status: Any
    ) -> tuple[Any, Any, Any, Any]:
        """One step of a loss that takes the answers as constants; its record last."""

        def objective(weights: Any) -> Any:
            predicted = self.predict(context, weights, batch.features)
            return self._total(context, batch, predicted, answers, status)

        (_, record), gradient = jax.value_and_grad(objective, has_aux=True)(weights)
        return *self._stepped(weights, state, gradient), record

    def cotangents(
        self, context: Context, batch: Batch, predicted: Any, answers: Any, status: Any
    ) -> tuple[Any, Any]:
        """Gradients of the step's loss in predictions and in decisions, and its record."""

        def objective(predicted: Any, answers: Any) -> Any:
            return self._total(context, batch, predicted, answers, status)

        return jax.grad(objective, argnums=(0, 1), has_aux=True)(predicted, answers)

    def update(
        self, context: Context, weights: Any, state: Any, batch: Batch, direct: Any, solved: Any
    ) -> tuple[Any, Any, Any]:
        """One step along the gradient of ⟨direct, ĉ⟩ − Σ λᵀR(θ(ĉ)), with λ and the solution held fixed."""

        def surrogate(weights: Any) -> Any:
            predicted = self.predict(context, weights, batch.features)
            total = sum((direct[name] * predicted[name]).sum() for name, _ in self.outputs)
            for label, query in self.loss.queries(self.layer, predicted, batch).items():
                total = total - self.layer.pairing(query, solved[label])
            return total

        return self._stepped(weights, state, jax.grad(surrogate)(weights))

    def score(self, predicted: Any, answers: Any, batch: Batch, loss: Loss) -> Any:
        """A loss by lane and sample at given decisions."""
        return loss.value(self.judging, predicted, answers, batch)


def _compiled(method: Callable[..., Any], *static: str) -> Callable[..., Any]:
    return jax.jit(method, static_argnums=0, static_argnames=static)


epoch = _compiled(Recipe.epoch)
ask = _compiled(Recipe.ask, "loss")
cotangents = _compiled(Recipe.cotangents)
descend = _compiled(Recipe.descend)
update = _compiled(Recipe.update)
score = _compiled(Recipe.score, "loss")


@functools.partial(jax.jit, static_argnums=0)
def begin(optimizer: optax.GradientTransformation, weights: Any) -> tuple[Any, Any]:
    """Stacked weights [L, ...] on the device, and the optimizer's states for them."""
    return weights, jax.vmap(optimizer.init)(weights)


@jax.jit
def averaged(mean: Any, weights: Any, rate: Any) -> Any:
    """A running mean of weights, moved by `rate` of the way to the last."""
    return jax.tree_util.tree_map(lambda a, w: a + rate * (w - a), mean, weights)


@functools.partial(jax.jit, static_argnums=2)
def keys(key: Any, epoch: Any, count: int) -> Any:
    """A key for each step of an epoch, [count, 2]."""
    return jax.random.split(jax.random.fold_in(key, epoch), count)
