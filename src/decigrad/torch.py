"""Layers and losses in PyTorch: `import decigrad.torch as dt`.

    layer = dt.Layer(dg.DecisionLayer(model))
    x = layer({"cost": net(features)})["x"]             # decisions, differentiable

    criterion = dt.Loss("spo+", dg.DecisionLayer(model))
    criterion(net(features), costs).backward()

One bridge carries everything. Forward, a compiled JAX function says which programs to solve, they are solved
outside of any trace, and another makes the outputs of the decisions; backward, `jax.vjp` of the latter gives
the cotangents of the decisions, and the derivative rule of the layer the rest. What the backward pass needs
belongs to the call, so a layer may be used any number of times before it.

Everything is computed in float64 on the CPU. Tensors of float64 in the memory of the CPU are read where they
are, results are handed over by DLPack; float32 is converted on the way in and out, tensors of another device
are copied to the host and back (and wait for the device) in each direction.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import numpy as np

try:
    import torch
except ImportError:
    raise ImportError("decigrad.torch needs PyTorch: pip install 'decigrad[torch]'") from None
from torch.autograd.function import once_differentiable

from decigrad import compiled
from decigrad.compiled import float64
from decigrad.data import Dataset
from decigrad.errors import ModelError
from decigrad.gradients import implicit
from decigrad.gradients.estimated import Estimated
from decigrad.layer import DecisionLayer
from decigrad.losses import Batch
from decigrad.losses import Loss as LossProtocol
from decigrad.registry import Auto, Method, named

# ------------------------------------------------------------------------------------------------ bridge


@dataclass(frozen=True)
class _Decide:
    """The decisions of a layer, as something around one solve."""

    layer: DecisionLayer
    through = True

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self.layer.form.variables)

    def queries(self, inputs: Any, batch: Any) -> Any:
        return {"decision": inputs}

    def value(self, inputs: Any, answers: Any, batch: Any) -> Any:
        return answers["decision"]


@dataclass(frozen=True)
class _Judge:
    """A loss by sample, in its two phases."""

    layer: DecisionLayer
    loss: LossProtocol
    outputs = ("loss",)

    @property
    def through(self) -> bool:
        return self.loss.through

    def queries(self, inputs: Any, batch: Any) -> Any:
        return self.loss.queries(self.layer, inputs, batch)

    def value(self, inputs: Any, answers: Any, batch: Any) -> Any:
        return {"loss": self.loss.value(self.layer, inputs, answers, batch)}


@functools.partial(jax.jit, static_argnums=0)
def _queries(call: Any, inputs: Any, batch: Any) -> Any:
    return call.queries(inputs, batch)


@functools.partial(jax.jit, static_argnums=0)
def _value(call: Any, inputs: Any, answers: Any, batch: Any) -> Any:
    return call.value(inputs, answers, batch)


@functools.partial(jax.jit, static_argnums=0)
def _cotangents(call: Any, inputs: Any, answers: Any, batch: Any, outputs: Any) -> Any:
    """Those of inputs and of decisions, for cotangents of the outputs."""
    return jax.vjp(lambda i, a: call.value(i, a, batch), inputs, answers)[1](outputs)


@functools.partial(jax.jit, static_argnums=0)
def _pulled(call: Any, inputs: Any, batch: Any, direct: Any, saved: Any) -> Any:
    """Cotangents of the inputs: their own, and those through the decisions (see `DecisionLayer.pairing`)."""

    def surrogate(inputs: Any) -> Any:
        total = sum((direct[name] * value).sum() for name, value in inputs.items())
        for label, query in call.queries(inputs, batch).items():
            total = total - call.layer.pairing(query, saved[label])
        return total

    return jax.grad(surrogate)(inputs)


class _Bridge(torch.autograd.Function):
    """(call, batch, names, *inputs) to the tensors of `call.value`, NaN in failed samples, and a status."""

    @staticmethod
    def forward(ctx: Any, call: Any, batch: Any, key: Any, names: tuple[str, ...], *tensors: Any) -> Any:
        inputs = {name: _numpy(tensor) for name, tensor in zip(names, tensors, strict=True)}
        with float64():
            queries = _queries(call, inputs, batch)
            solutions = {label: call.layer.solve(query, key=key) for label, query in queries.items()}
            answers = {
                label: {name: np.nan_to_num(x) for name, x in solved.x.items()}
                for label, solved in solutions.items()
            }
            values = _value(call, inputs, answers, batch)
        lead = next(iter(solutions.values())).status.shape if batch is None else batch.weight.shape
        status = np.zeros(lead, np.int64)
        for solved in solutions.values():
            status = np.asarray(np.maximum(status, solved.status.reshape(-1, *lead).max(0)))
        arrays = [np.asarray(values[name]) for name in call.outputs]
        kept = [np.where(_wide(status == 0, array), array, np.nan) for array in arrays]
        ctx.call, ctx.batch, ctx.names, ctx.status = call, batch, names, status
        ctx.solutions, ctx.answers = solutions, answers
        ctx.save_for_backward(*tensors)
        dtype = functools.reduce(torch.promote_types, [t.dtype for t in tensors])
        state = torch.from_dlpack(status)
        ctx.mark_non_differentiable(state)
        return state, *(torch.from_dlpack(v).to(tensors[0].device, dtype) for v in kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Any, *outputs: Any) -> Any:
        call, batch = ctx.call, ctx.batch
        inputs = {name: _numpy(tensor) for name, tensor in zip(ctx.names, ctx.saved_tensors, strict=True)}
        bars = {name: _numpy(bar) for name, bar in zip(call.outputs, outputs, strict=True)}
        bars = {name: np.where(_wide(ctx.status == 0, bar), bar, 0.0) for name, bar in bars.items()}
        with float64():
            direct, through = _cotangents(call, inputs, ctx.answers, batch, bars)
            if call.through:
                saved = {label: call.layer.saved(s, through[label]) for label, s in ctx.solutions.items()}
                direct = _pulled(call, inputs, batch, direct, saved)
        found: list[Any] = [None] * 4
        needed = ctx.needs_input_grad[4:]
        for name, tensor, need in zip(ctx.names, ctx.saved_tensors, needed, strict=True):
            bar = torch.from_dlpack(direct[name]).to(tensor.device, tensor.dtype) if need else None
            found.append(bar)
        return tuple(found)


def _check_derivative(layer: DecisionLayer, names: set[str]) -> None:
    """Refuse to differentiate in these parameters where the solver leaves that undefined."""
    if layer.backward is not None:
        _check_derivative(layer.backward, names)
    elif not isinstance(layer.gradient, Estimated):
        parts = [part for part in compiled.PARTS if layer.form.depends(part) & names]
        entering = layer.form.depends(*implicit.undefined(layer.solver)) & names
        implicit.refuse(layer.solver, parts, sorted(entering))


def _numpy(tensor: Any) -> np.ndarray:
    """The values in float64 on the host; without a copy where they are that already."""
    return tensor.detach().to("cpu", torch.float64).numpy()


def _wide(mask: np.ndarray, value: np.ndarray) -> np.ndarray:
    return mask.reshape(mask.shape + (1,) * (value.ndim - mask.ndim))


def _tensors(given: Any, layer: DecisionLayer, what: str) -> dict[str, Any]:
    """By parameter name; a bare tensor is the one predicted parameter."""
    if not isinstance(given, Mapping):
        if len(layer.predicts) != 1:
            raise ModelError(f"{what}: pass a dict by name, for the layer predicts {list(layer.predicts)}")
        given = {layer.predicts[0]: given}
    layer.model.check_names(given)
    found = {}
    for name, value in given.items():
        value = torch.as_tensor(value)
        found[name] = value if value.is_floating_point() else value.to(torch.get_default_dtype())
    return found


class _Module(torch.nn.Module):
    """A module without parameters or buffers; copies share the layer and what is compiled for it."""

    layer: DecisionLayer

    def _key(self) -> Any:
        """Randomness of a call: from torch's generator in training, the same at every call else."""
        return jax.random.PRNGKey(int(torch.randint(2**31, ())) if self.training else 0)

    def extra_repr(self) -> str:
        return repr(self.layer)


# ------------------------------------------------------------------------------------------------- modules


class Layer(_Module):
    """A `DecisionLayer` as a torch module: parameters in, decisions out, differentiable in all of them.

        dt.Layer(layer)({"cost": costs, "budget": budgets})["x"]

    Args:
        layer: with its solver and gradient. Where a sample fails it raises as outside of torch; with
            `throw=False` the decision is NaN and its gradient zero.

    Forward takes tensors [*batch, *shape] by parameter name (or the one predicted parameter), batch axes
    broadcast, and returns decisions by variable name, in the widest of the inputs' types. Estimators that
    draw do so from torch's generator (`torch.manual_seed`) in training, and the same at every call after
    `eval()`. Derivatives are of the first order.
    """

    def __init__(self, layer: DecisionLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, parameters: Any) -> dict[str, Any]:
        """Decisions by variable name, [*batch, *shape]."""
        given = _tensors(parameters, self.layer, "Layer")
        if not given:
            raise ModelError("Layer: pass at least one parameter as a tensor; the others keep their values")
        if torch.is_grad_enabled():
            _check_derivative(self.layer, {name for name, value in given.items() if value.requires_grad})
        draws = isinstance(self.layer.gradient, Estimated)
        call, key = _Decide(self.layer), self._key() if draws else None
        _, *x = _Bridge.apply(call, None, key, tuple(given), *given.values())
        return dict(zip(self.layer.form.variables, x, strict=True))


@dataclass(frozen=True)
class Labels:
    """True and known parameters by sample with the best decisions under them; index it like a tensor."""

    batch: Batch

    def __len__(self) -> int:
        return len(self.batch.weight)

    def __getitem__(self, index: Any) -> Labels:
        position = index.detach().cpu().numpy() if isinstance(index, torch.Tensor) else index
        if np.ndim(np.arange(len(self))[position]) != 1:
            raise ModelError("index labels with a slice, or with the positions of the samples of a batch")
        shared = replace(self.batch, spread=None, pool=None)
        taken = jax.tree_util.tree_map(lambda a: a[position], shared)
        return Labels(replace(taken, spread=self.batch.spread, pool=self.batch.pool))


class Loss(_Module):
    """Any loss of decigrad as a torch module.

        criterion = dt.Loss("spo+", layer)
        criterion(predicted, true)                          # solves for the labels of this batch
        labels = criterion.labels(true, known)              # or once, for all data …
        criterion(predicted[i], labels=labels[i])           # … of which a batch takes its own

    Args:
        loss: a loss such as `dg.losses.Regret()`, a name of `dg.methods()`, or a `dg.Method`, which may bring
            a gradient of its own.
        layer: the decision layer.
        reduction: "mean" or "sum" over the samples that were solved, or "none".

    Where a sample fails, the layer's `throw` decides: an error, or no part in the mean (NaN with "none") and
    a gradient of zero; the mean is NaN where all fail. Noise and margins in units of the targets' spread
    take that of the labels: make these of all data at once where batches are small.
    """

    def __init__(
        self,
        loss: LossProtocol | Method | str,
        layer: DecisionLayer,
        reduction: Literal["mean", "sum", "none"] = "mean",
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ModelError(f"Loss: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        if loss == "auto" or isinstance(loss, Auto):
            raise ModelError("Loss: 'auto' is a choice that fit makes; name one method")
        method = named(loss) if isinstance(loss, str) else loss
        if not isinstance(method, Method):
            method = Method(method)
        self.loss, self.layer, self.reduction = method.loss, method.layer(layer), reduction
        self.loss.check(self.layer)
        if self.loss.decides and self.loss.through:
            self.layer.check_derivative()

    def labels(self, true: Any, known: Any = None) -> Labels:
        """What the loss compares with: solved for once, for samples [N, *shape].

        Args:
            true: true values of the predicted parameters, a tensor or by name.
            known: values of the known parameters, by name.
        """
        targets = {n: _numpy(t) for n, t in _tensors(true, self.layer, "Loss").items()}
        given = {n: _numpy(t) for n, t in _tensors(known or {}, self.layer, "Loss").items()}
        for name, value in {**targets, **given}.items():
            if value.ndim == self.layer.parameters[name].ndim:
                raise ModelError(f"Loss: {name!r} needs a leading axis of samples, got shape {value.shape}")
        count = len(next(iter(targets.values())))
        data = Dataset(np.zeros((count, 1)), targets, given)
        data.check(self.layer)
        spread = {n: np.where(t.std(axis=0) > 0, t.std(axis=0), 1.0) for n, t in targets.items()}
        batch = Batch(
            index=np.arange(count),
            features=data.features,
            targets=data.targets,
            known=data.known,
            optimal={},
            optimal_value=np.zeros(count),
            weight=np.ones(count),
            spread=spread,
        )
        if not self.loss.decides:
            return Labels(batch)
        solved, _ = data.optimal(self.layer, throw=self.layer.throw)
        status = np.broadcast_to(solved.status, (count,))
        optimal = {n: np.array(np.broadcast_to(x, (count, *x.shape[1:]))) for n, x in solved.x.items()}
        pool = None
        if getattr(self.loss, "pools", False):
            pool = _distinct({n: x[status == 0] for n, x in optimal.items()})
        prepared = None
        if hasattr(self.loss, "prepare"):
            with float64():
                prepared = jax.tree_util.tree_map(np.asarray, self.loss.prepare(self.layer.exact, solved))
        batch = replace(batch, optimal={n: np.nan_to_num(x) for n, x in optimal.items()}, pool=pool)
        value, weight = np.where(status, 0.0, solved.objective), np.where(status, 0.0, 1.0)
        return Labels(replace(batch, optimal_value=value, weight=weight, labels=prepared))

    def forward(
        self, predicted: Any, true: Any = None, known: Any = None, labels: Labels | None = None
    ) -> Any:
        """The loss of predictions [B, *shape], a tensor or by name: a number, or [B] without reduction."""
        if (true is None) == (labels is None):
            raise ModelError("Loss: pass either the true parameters or labels")
        if labels is None:
            labels = self.labels(true, known)
        given = _tensors(predicted, self.layer, "Loss")
        for name, value in given.items():
            if tuple(value.shape) != (len(labels), *self.layer.parameters[name].shape):
                shape = (len(labels), *self.layer.parameters[name].shape)
                raise ModelError(f"Loss: predicted {name!r} has shape {tuple(value.shape)}, expected {shape}")
        if missing := [name for name in self.layer.predicts if name not in given]:
            raise ModelError(f"Loss: the prediction of {missing[0]!r} is missing")
        key = self._key()
        batch = replace(labels.batch, key=key)
        call = _Judge(self.layer, self.loss)
        status, values = _Bridge.apply(call, batch, key, tuple(given), *given.values())
        solved = (status.to(values.device) == 0) & torch.as_tensor(labels.batch.weight > 0).to(values.device)
        if self.reduction == "none":
            return torch.where(solved, values, torch.nan)
        total = torch.where(solved, values, 0.0).sum()
        return total if self.reduction == "sum" else total / solved.sum()


def _distinct(decisions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each decision once, [K, *shape]."""
    flat = np.concatenate([x.reshape(len(x), -1) for x in decisions.values()], axis=1)
    _, first = np.unique(flat.round(9), axis=0, return_index=True)
    return {name: x[np.sort(first)] for name, x in decisions.items()}
