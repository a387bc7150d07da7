"""What a loss is: queries that say what to solve, and a value that is differentiated.

A loss has two phases. `queries` names the parameter sets to be solved for a batch; they are solved wherever
solving is best (on the device inside `jit`, or on the host between two compiled functions). `value` turns
predictions and decisions into one number a sample; it is a pure JAX function, differentiated in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import jax

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer

Parameters = Mapping[str, Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Samples with any leading axes [...]: positions in the data, truth, labels and weights.

    `optimal` are the decisions under the true parameters, `optimal_value` their objective. `spread` are the
    standard deviations of the training targets by entry, `pool` known decisions [K, *shape] by variable,
    `key` the randomness of this step; they have no sample axes. `seen` [K, *lead] says which of the pool a
    sample may be compared with (None: all). `labels` are what the loss's `prepare` made.
    """

    index: Any
    features: Any
    targets: dict[str, Any]
    known: dict[str, Any]
    optimal: dict[str, Any]
    optimal_value: Any
    weight: Any
    spread: Any = None
    pool: Any = None
    seen: Any = None
    key: Any = None
    labels: Any = None

    @property
    def truth(self) -> dict[str, Any]:
        """All parameters as they turned out."""
        return {**self.targets, **self.known}


class Loss(Protocol):
    """A loss by sample; smaller is better.

    A loss may also have a method `prepare(layer, labels) -> dict of arrays [N, ...]`, which `fit` calls once
    on the host, before training, with the `Solutions` under the true parameters; each batch finds the part
    of its samples in `Batch.labels`.
    """

    decides: bool
    """Whether it needs decisions; without, it is a prediction loss."""
    through: bool
    """Whether its gradient goes through the decisions; else the answers to its queries count as constants."""

    @property
    def metric(self) -> Loss:
        """The loss by which predictors trained with this one are selected."""
        ...

    def check(self, layer: DecisionLayer) -> None:
        """Refuse a layer that the loss cannot judge."""
        ...

    def queries(self, layer: DecisionLayer, predicted: Parameters, batch: Batch) -> dict[str, dict[str, Any]]:
        """Parameter sets to be solved, by label."""
        ...

    def value(
        self, layer: DecisionLayer, predicted: Parameters, answers: dict[str, dict[str, Any]], batch: Batch
    ) -> Any:
        """The loss by sample [...], given the decisions for each query."""
        ...
