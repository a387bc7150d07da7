"""Where the arrays of training live: on one device, or each step's samples divided among several.

Over several devices, data and weights are on all of them and the samples of a step are divided: every device
gathers, predicts, solves and differentiates its own part, and XLA adds up the gradients. The program is that
of one device, so draws, masks and means are the same, and results agree to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from decigrad.errors import ModelError


class Placement:
    """On the default device (None), or over JAX devices: a list of them, or how many of `jax.devices()`."""

    def __init__(self, devices: int | Sequence[Any] | None = None) -> None:
        self.count = 1
        self._mesh: jax.sharding.Mesh | None = None
        if devices is None:
            return
        if isinstance(devices, int | np.integer):
            known = jax.devices()
            if not 1 <= devices <= len(known):
                raise ModelError(f"devices must lie between 1 and {len(known)}, those of JAX, got {devices}")
            devices = known[:devices]
        if not len(devices) or not all(isinstance(device, jax.Device) for device in devices):
            raise ModelError(f"devices must be a number or a list as jax.devices(), got {devices!r}")
        self.count = len(devices)
        self._mesh = jax.sharding.Mesh(np.array(devices), ("samples",))

    def everywhere(self, tree: Any) -> Any:
        """Arrays on every device."""
        return jax.device_put(tree, self._sharding())

    def divided(self, tree: Any) -> Any:
        """Arrays [L, B] or [steps, L, B] with the samples B divided among the devices."""
        if self._mesh is None:
            return tree
        return jax.tree_util.tree_map(
            lambda a: jax.device_put(a, self._sharding(*(None,) * (a.ndim - 1), "samples")), tree
        )

    def whole(self, size: int) -> int:
        """The least multiple of the number of devices that is not below `size`."""
        return -(-size // self.count) * self.count

    def _sharding(self, *axes: str | None) -> Any:
        if self._mesh is None:
            return None
        return jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec(*axes))
