"""The trainer: several trainings ("lanes") in one batch, over a device or a host solver.

A lane is one training: its own weights, samples and proximal pull. Cross-validation trains every fold ×
candidate as a lane, so that a solver sees one large batch a step. With a device solver a whole epoch is one
compiled call; with a host solver each step is predict (compiled) → solve (host) → cotangents (compiled) →
adjoint (host) → update (compiled), so that no callback is needed. Judging is predict → solve → score with
either, so that what the solver compiles to serves labels and judgements alike.
"""

from __future__ import annotations

import copy
import functools
import logging
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax

from decigrad import steps
from decigrad.batching import may_block
from decigrad.data import Dataset, Scaling
from decigrad.errors import ModelError, SolveError
from decigrad.gradients import KKT, Relaxed
from decigrad.gradients.implicit import Gradient
from decigrad.lanes import Judged, Lanes, padded
from decigrad.layer import DecisionLayer
from decigrad.losses import Batch, Imitation, Loss, Regret
from decigrad.placement import Placement
from decigrad.predictors import outputs_of, predict
from decigrad.program import Start, Status
from decigrad.reuse import DecisionPool, Reuse
from decigrad.warm import ActiveSets

AVERAGED = 6  # epochs: a running mean of the weights forgets with this horizon
STILL = optax.set_to_zero()
CHUNK = 8192  # samples × lanes solved at once when judging


class Trainer:
    """Steps and judgements for lanes of one predictor structure, layer, loss and dataset."""

    def __init__(
        self,
        predictor: Any,
        layer: DecisionLayer,
        loss: Loss,
        data: Dataset,
        optimizer: optax.GradientTransformation,
        batch_size: int,
        seed: int = 0,
        averaging: bool = False,
        stop: bool = False,
        solve_ratio: float = 1.0,
        placement: Placement | None = None,
    ) -> None:
        if loss.decides and loss.through:
            layer.check_derivative()
        self.idle = without_gradient(layer, loss)
        """Training would change nothing, for the gradient is zero."""
        if self.idle:
            logging.getLogger("decigrad").warning(
                "%s cannot train %r: decisions of a linear program jump as its cost moves, and their exact "
                "derivative is zero, so two-stage will stay as it is; use loss='auto', loss='spo+', or a "
                "gradient such as Smoothed(1.0, relative=True)", type(loss).__name__, layer.model.name,
            )  # fmt: skip
        self.averaging, self.stop, self.placement = averaging, stop, placement or Placement()
        self.failures: dict[int, str] = {}
        """Samples whose decision failed at least once, by position in the data, and the status."""
        self.layer, self.loss, self.data = layer, loss, data
        self.seed, self.key, self.epochs = seed, jax.random.PRNGKey(seed), 0
        self.optimizer, self.batch_size = optimizer, batch_size
        trained, arrays, static = steps.Static.split(predictor)
        if not jax.tree_util.tree_leaves(trained):
            raise ModelError(
                "the predictor has nothing to train: no floating-point JAX arrays among its leaves"
            )
        self.calls = 0
        self.recipe = steps.Recipe(layer, layer.exact, loss, optimizer, outputs_of(layer), static)
        scales = {name: Scaling.of(data, [name]).scale for name in layer.predicts}
        spread = {n: s.reshape(layer.parameters[n].shape) for n, s in scales.items()}
        reused = solve_ratio != 1 and loss.decides
        self.reuse = Reuse(layer, loss, solve_ratio, seed) if reused else None
        labelled = self._labelled(data)
        pool, self.place = self._pool(labelled)
        self.context = self.placement.everywhere(steps.Context(labelled, arrays, spread, pool))
        self.traced = loss.decides and self._traced()
        """Whether a host solver has a form inside the trace, so that an epoch is one compiled call."""
        self.host = loss.decides and not self.traced and (layer.host or self.reuse is not None)

    def _traced(self) -> bool:
        layer, solver = self.layer, self.layer.solver
        plain = isinstance(layer.gradient, Gradient) and layer.backward is None
        fixed = not layer.form.depends("P") & (set(layer.predicts) | set(self.data.known))
        alone = self.reuse is None and self.placement.count == 1
        if not (plain and fixed and alone and hasattr(solver, "traces")):
            return False
        values = {name: value[:1] for name, value in {**self.data.targets, **self.data.known}.items()}
        program = layer.gradient.program(layer.programs(values)[0])
        self.sizes = program.num_inequalities, program.n
        return bool(solver.traces(program)) and not may_block(np.empty((self.batch_size, program.n)))

    def like(self, data: Dataset) -> Trainer:
        """The same trainer on other data."""
        data.check(self.layer)
        twin = object.__new__(Trainer)
        twin.__dict__.update(self.__dict__)
        twin.data, twin.calls, twin.failures, twin.stop, twin.reuse = data, 0, {}, False, None
        twin.context = replace(self.context, data=self.placement.everywhere(twin._labelled(data)))
        return twin

    def _labelled(self, data: Dataset) -> Batch:
        """The data, with optimal decisions and values where the loss needs decisions."""
        optimal: dict[str, np.ndarray] = {}
        value, weight, position = np.zeros(len(data)), data.weights, np.arange(len(data))
        prepared = None
        if self.loss.decides:
            labels, solved = data.optimal(self.layer, throw=self.layer.throw)
            self.calls += solved
            status = np.broadcast_to(labels.status, value.shape)
            self._note(position, status)
            if status.all():
                raise SolveError("no sample has a decision under its true parameters")
            optimal = {name: np.nan_to_num(x) for name, x in labels.x.items()}
            value = np.where(status, 0.0, labels.objective)
            weight = np.where(status, 0.0, weight)
            if self.reuse is not None:
                self.solved = np.broadcast_to(labels.raw.x, (len(data), labels.raw.x.shape[-1]))
            if hasattr(self.loss, "prepare"):
                prepared = self.loss.prepare(self.layer.exact, labels)
        parts = (position, data.features, data.targets, data.known, optimal, value, weight)
        self.weights = weight  # 0 for samples without a decision
        return Batch(*parts, labels=prepared)

    def _pool(self, data: Batch) -> tuple[Any, Any]:
        """For losses that rank known decisions: the distinct optimal ones, and the place of each sample's [N]
        among them (K, one too many, where it has none)."""
        if not getattr(self.loss, "pools", False):
            return None, None
        known = np.flatnonzero(data.weight > 0)
        optimal = {name: x[known] for name, x in data.optimal.items()}
        flat = np.concatenate([x.reshape(len(x), -1) for x in optimal.values()], axis=1)
        _, first, which = np.unique(flat.round(9), axis=0, return_index=True, return_inverse=True)
        place = np.full(len(self.data), len(first))
        place[known] = np.argsort(np.argsort(first))[which.ravel()]
        return {name: x[np.sort(first)] for name, x in optimal.items()}, place

    def _seen(self, parts: list[np.ndarray]) -> Any:
        """The pooled decisions that are optimal for a sample of the lane, so not for those held out."""
        if self.place is None:
            return None
        count = len(next(iter(self.context.pool.values())))
        own = [np.isin(np.arange(count), self.place[part]) for part in parts]
        return np.stack(own, axis=1)[:, :, None]

    def lanes(
        self, predictors: list[Any], parts: list[np.ndarray], weights: np.ndarray, unit: np.ndarray
    ) -> Lanes:
        """One lane for each predictor, on its part of the data, pulled to where it starts."""
        trees = [eqx.filter(p, steps.is_trained) for p in predictors]
        stacked, state = steps.begin(
            self.optimizer, jax.tree_util.tree_map(lambda *leaves: np.stack(leaves), *trees)
        )
        index, mask = padded(parts)
        pull = np.asarray(weights) * np.asarray(unit)
        pools = [] if self.reuse is None else [DecisionPool(self.solved[part]) for part in parts]
        stacked, state, seen = self.placement.everywhere((stacked, state, self._seen(parts)))
        sets = ActiveSets(self.layer, len(self.data)) if self.loss.decides else None
        return Lanes(stacked, stacked, state, stacked, index, mask, pull, seen, pools, sets)

    def predictor(self, lanes: Lanes, lane: int) -> Any:
        """The predictor of one lane."""
        trained = jax.tree_util.tree_map(lambda a: jax.device_put(np.asarray(a)[lane]), lanes.judged)
        arrays = jax.tree_util.tree_map(np.asarray, self.context.arrays)
        return self.recipe.static.join(trained, arrays)

    def state(self) -> Any:
        """What a checkpoint keeps: counters, failures and draws."""
        reuse = None if self.reuse is None else self.reuse.state()
        failures = list(self.failures.items())
        return {"calls": self.calls, "epochs": self.epochs, "failures": failures, "reuse": reuse}

    def restore(self, state: Any) -> None:
        """Go on from there."""
        self.calls, self.epochs, self.failures = state["calls"], state["epochs"], dict(state["failures"])
        if self.reuse is not None:
            self.reuse.restore(state["reuse"])

    def epoch(self, lanes: Lanes, rng: Any) -> tuple[np.ndarray, np.ndarray]:
        """One pass over every lane's samples, in place; their mean loss and how many failed, by lane."""
        before = lanes.judged
        index, mask = self._batches(lanes, rng)
        keys = np.asarray(steps.keys(self.key, self.epochs, len(index)))
        self.epochs += 1
        if self.loss.decides:
            forward, backward = self.layer.gradient.solves
            each = forward + backward * self.loss.through
            self.calls += int(mask.sum()) * getattr(self.loss, "solves", 1) * each
        loss, status, sound = self._steps(lanes, index, mask, keys)
        if not sound.all():
            step = int(np.argmin(sound.all(1)))
            raise self._unsound(lanes, index[step], mask[step], keys[step : step + 1])
        self._note(index, status)
        failed = (status != 0).sum((0, 2))
        counted = (self.weights[index] * mask * (status == 0)).sum(2)  # [steps, L]
        loss = (loss * counted).sum(0) / np.maximum(counted.sum(0), 1e-300)
        lanes.epochs += 1
        lanes.judged = lanes.weights
        if self.averaging:
            rate = max(1.0 / lanes.epochs, 1.0 / AVERAGED)
            lanes.judged = steps.averaged(before, lanes.weights, rate)
        if not np.isfinite(loss).all():
            raise SolveError("the training loss became NaN: lower the learning rate, or check the loss")
        if (failed >= lanes.mask.sum(1)).any():
            raise SolveError(
                "every sample of an epoch failed to solve; see layer.solve(..., throw=False).status"
            )
        return loss, failed

    def _steps(
        self, lanes: Lanes, index: np.ndarray, mask: np.ndarray, keys: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Steps in place, to the first not sound: loss [steps, L], status [steps, L, B], sound [steps, L]."""
        found: list[Any] = []
        if self.host:
            for at in zip(index, mask, keys, strict=True):
                found.append(self._host_step(lanes, *at))
                if not found[-1][2].all():
                    break
            found = list(zip(*found, strict=True))
        else:
            at = *self.placement.divided((index, mask)), keys
            sets = self._sets(lanes, at)
            lanes.weights, lanes.optimizer, sets, *found = steps.epoch(
                self.recipe, self._context(lanes), lanes.weights, lanes.optimizer, sets, *at
            )
            if lanes.sets is not None:
                lanes.sets.kept.update(sets)
        loss, status, sound = map(np.asarray, found)
        return loss, status, sound

    def _sets(self, lanes: Lanes, at: Any) -> dict[str, Any]:
        """The active sets that the queries of an epoch inside a trace start from."""
        if not self.traced or lanes.sets is None or not lanes.sets.warm:
            return {}
        if not lanes.sets.kept:
            first = (a[0] for a in at)
            asked = functools.partial(steps.ask, self.recipe, loss=self.loss)
            _, _, queries = jax.eval_shape(asked, self._context(lanes), lanes.weights, *first)
            for label, query in queries.items():
                leads = (v.shape[: v.ndim - self.layer.parameters[n].ndim] for n, v in query.items())
                count = int(np.prod(np.broadcast_shapes(*leads))) // at[0][0].size
                lanes.sets.begin(label, count, len(at[0][0]), *self.sizes)
        return dict(lanes.sets.kept)

    def _unsound(self, lanes: Lanes, index: np.ndarray, mask: np.ndarray, key: Any) -> SolveError:
        """The error for a step [L, B] that is not finite, naming the first sample that alone makes it so."""
        still, unmoved = copy.copy(self), replace(lanes, optimizer=optax.EmptyState())
        still.recipe = replace(self.recipe, optimizer=STILL)
        for place in range(index.shape[1]):
            alone = np.where(np.arange(index.shape[1]) == place, mask, 0.0)
            repeated = np.repeat(index[:, place : place + 1], index.shape[1], axis=1)
            _, _, sound = still._steps(replace(unmoved), repeated[None], alone[None], key)
            for lane in np.flatnonzero(~sound[0]).tolist():
                sample = int(index[lane, place])
                model = self.predictor(replace(lanes, judged=lanes.weights), lane)
                found = predict(model, self.data.features[sample : sample + 1], self.recipe.outputs)
                lost = [name for name, value in found.items() if not np.isfinite(value).all()]
                if lost:
                    why = f"Its prediction of {lost} is not finite: lower learning_rate, or set clip"
                else:
                    why = (
                        "Its predictions are finite, so it is the loss that has no finite derivative there: "
                        "check its cost (a root or logarithm at 0?) and the sample's values"
                    )
                where = f"at sample {sample} of the data"
                return SolveError(f"the gradient of the loss became NaN or infinite {where}. {why}")
        return SolveError(
            "a step of training became NaN or infinite, though the gradient of each sample is finite: lower "
            "learning_rate (or what its schedule gives), or set clip"
        )

    def _note(self, index: np.ndarray, status: np.ndarray) -> None:
        """Remember which samples failed; with `stop`, raise for the first."""
        for i, s in zip(index[status != 0].tolist(), status[status != 0].tolist(), strict=True):
            self.failures.setdefault(i, Status(s).name)
            if self.stop:
                raise SolveError(f"sample {i} of the data ended with {Status(s).name}: {Status(s).advice}")

    def _batches(self, lanes: Lanes, rng: Any) -> tuple[np.ndarray, np.ndarray]:
        """Positions and weights [steps, L, B]: all samples in a fresh order, the last batch padded."""
        lane_count, n = lanes.index.shape
        size = self.placement.whole(min(self.batch_size, n))
        count = -(-n // size)
        full = np.concatenate([rng.permutation(n), np.zeros(count * size - n, int)])
        index = lanes.index[:, full].reshape(lane_count, count, size).swapaxes(0, 1)
        mask = lanes.mask[:, full].copy()
        mask[:, n:] = 0.0
        return index, mask.reshape(lane_count, count, size).swapaxes(0, 1)

    def _solved(
        self, layer: DecisionLayer, queries: Any, shape: tuple[int, ...], key: Any, starts: Any = None
    ) -> tuple[Any, Any, Any]:
        solutions = {
            label: layer.solve(query, throw=False, key=key, start=None if starts is None else starts(label))
            for label, query in queries.items()
        }
        status = np.zeros(shape, np.int32)
        for solved in solutions.values():
            status = np.maximum(status, solved.status.reshape(-1, *shape).max(0))
        answers = {
            label: {name: np.nan_to_num(x) for name, x in solved.x.items()}
            for label, solved in solutions.items()
        }
        return solutions, answers, status

    def _context(self, lanes: Lanes) -> steps.Context:
        return replace(self.context, seen=lanes.seen, anchor=lanes.anchor, pull=lanes.pull)

    def _host_step(
        self, lanes: Lanes, index: np.ndarray, mask: np.ndarray, key: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        recipe, context = self.recipe, self._context(lanes)
        at = *self.placement.divided((index, mask)), key
        predicted, batch, queries = steps.ask(recipe, context, lanes.weights, *at, loss=self.loss)
        if self.reuse is not None and self.reuse.next():
            before = self.reuse.saved
            answers, status = self.reuse.answers(lanes.pools, queries, mask)
            self.calls -= self.reuse.saved - before
        else:
            sets = lanes.sets or ActiveSets(self.layer, len(self.data))
            starts = functools.partial(sets.start, index=index)
            solutions, answers, status = self._solved(self.layer, queries, index.shape, key, starts)
            for label, solved in solutions.items():
                sets.keep(label, index, Start(solved.raw.active, solved.raw.fixed))
            for solved in solutions.values() if lanes.pools else ():
                each = solved.raw.x.reshape(-1, *index.shape, solved.raw.x.shape[-1]).swapaxes(0, 1)
                for x, pool in zip(each, lanes.pools, strict=True):
                    pool.add(x.reshape(-1, x.shape[-1]))
        if not self.loss.through:
            *moved, sound, record = steps.descend(
                recipe, context, lanes.weights, lanes.optimizer, batch, answers, status
            )
        else:
            (direct, through), record = steps.cotangents(recipe, context, batch, predicted, answers, status)
            saved = {label: self.layer.saved(found, through[label]) for label, found in solutions.items()}
            *moved, sound = steps.update(
                recipe, context, lanes.weights, lanes.optimizer, batch, direct, saved
            )
        lanes.weights, lanes.optimizer = moved
        return np.asarray(record[0]), np.asarray(record[1]), np.asarray(sound)

    def judge(self, lanes: Lanes, parts: list[np.ndarray]) -> Judged:
        """The loss's metric for every lane on its part of the data; a failed sample counts as the worst."""
        loss = self.loss.metric
        index, mask = padded(parts)
        width = self.placement.whole(max(1, min(index.shape[1], CHUNK // len(parts))))
        values, goods = [], []
        for start in range(0, index.shape[1], width):
            columns = np.arange(start, start + width)
            block = index[:, np.minimum(columns, index.shape[1] - 1)]
            value, status = self._judge_block(lanes, block, loss)
            self._note(block, np.asarray(status))
            kept = int((columns < index.shape[1]).sum())
            values.append(np.asarray(value)[:, :kept])
            goods.append(np.asarray(status)[:, :kept] == 0)
        if loss.decides:
            self.calls += int(mask.sum()) * getattr(loss, "solves", 1)
        value, good = np.concatenate(values, axis=1), np.concatenate(goods, axis=1)
        counts = good & (self.weights[index] > 0)
        value = np.where(good, value, np.where(counts, value, -np.inf).max(initial=0.0))
        lists = [value[i, : part.size] for i, part in enumerate(parts)]
        weights = [self.weights[part] for part in parts]
        return Judged.of(lists, weights)

    def _judge_block(self, lanes: Lanes, block: np.ndarray, loss: Loss) -> tuple[Any, Any]:
        key, context = jax.random.PRNGKey(0), self._context(lanes)
        at = *self.placement.divided((block, np.ones(block.shape))), key
        predicted, batch, queries = steps.ask(self.recipe, context, lanes.judged, *at, loss=loss)
        _, answers, status = self._solved(self.recipe.judging, queries, block.shape, key)
        return steps.score(self.recipe, predicted, answers, batch, loss=loss), status


def without_gradient(layer: DecisionLayer, loss: Loss) -> bool:
    """Whether the exact derivative of linear decisions in their cost, zero, is all that a loss trains by."""
    moving = layer.form.depends("A", "b", "G", "h", "lb", "ub") & set(layer.predicts)
    plain = isinstance(layer.gradient, KKT | Relaxed) and layer.form.linear and not moving
    return plain and isinstance(loss, Regret | Imitation)
