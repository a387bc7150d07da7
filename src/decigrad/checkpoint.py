"""The state of a fit in one file: written whole, replaced at once, verified when read, never code.

    decigrad checkpoint 1 <SHA-256 of the rest>
    <npz: "state", a tree of numbers and texts as JSON, and the arrays that it refers to by number>

The structure of what is trained (predictor, optimizer state) comes from the fit that reads it: only leaves
are stored, and their shapes and types are checked.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.errors import ModelError
from decigrad.files import replacing

MAGIC = b"decigrad checkpoint"
VERSION = 1
_ARRAY = "\0array"  # the key by which the JSON refers to an array


class Checkpoint:
    """The phases of a fit that have begun, by name, and its result once it has one.

    Args:
        path: the file; None keeps nothing.
        every: epochs between two writings.
        fingerprint: digests of the fit's arguments by name; a file with others is refused.

    Raises:
        ModelError: the file is damaged, of a newer version, or of another fit; or it cannot be a file.
    """

    def __init__(self, path: Any, every: int, fingerprint: Mapping[str, str]) -> None:
        self.path = None if path is None else Path(path)
        self.every = every
        self.result: Any = None
        """The state of the result, where the fit is finished."""
        self._phases: dict[str, bytes] = {}
        self._fingerprint = dict(fingerprint)
        self._since = 0  # epochs that are not in the file
        self._warned = False
        self._began, self._spent = time.perf_counter(), 0.0
        self.fit = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        """When the fit was first started: its name in logs."""
        if self.path is None:
            return
        if self.path.is_dir() or not self.path.absolute().parent.is_dir():
            raise ModelError(f"checkpoint {str(path)!r} cannot be a file: its folder must exist")
        if self.path.exists():
            self._resume(read(self.path))

    @property
    def seconds(self) -> float:
        """Time of the fit, over all its calls."""
        return self._spent + time.perf_counter() - self._began

    def phase(self, name: str) -> Any:
        """The state of a phase as it was kept last; None where it has not begun."""
        return unpack(self._phases[name]) if name in self._phases else None

    def keep(self, name: str, state: Any) -> None:
        """Remember a phase's state after an epoch, and write the file where it is time to."""
        if self.path is None:
            return
        self._phases[name] = pack(state)
        self._since += 1
        if self._since >= self.every:
            self.flush()

    def finish(self, result: Any) -> None:
        """The fit is done: its result takes the place of the phases."""
        if self.path is not None:
            self.result, self._phases, self._since = result, {}, self._since + 1
            self.flush()

    def flush(self) -> None:
        """Write what is not in the file yet. A full disk must not lose the training: it is said once."""
        if self.path is None or not self._since:
            return
        phases = {name: np.frombuffer(state, np.uint8) for name, state in self._phases.items()}
        state = {
            "fingerprint": self._fingerprint, "fit": self.fit, "seconds": self.seconds,
            "result": self.result, "phases": phases,
        }  # fmt: skip
        try:
            write(self.path, state)
        except OSError as error:
            if not self._warned:
                logging.getLogger("decigrad").warning(
                    "the checkpoint %s could not be written (%s): training goes on, and the file is still "
                    "that of an earlier epoch", self.path, error,
                )  # fmt: skip
            self._warned = True
        else:
            self._since = 0

    def _resume(self, state: Any) -> None:
        theirs = state["fingerprint"]
        names = [*self._fingerprint, *(name for name in theirs if name not in self._fingerprint)]
        changed = [name for name in names if self._fingerprint.get(name) != theirs.get(name)]
        if changed:
            raise ModelError(
                f"checkpoint {str(self.path)!r} belongs to another fit: it differs in {', '.join(changed)}. "
                f"Call fit with the arguments it was begun with, name another file, or remove this one to "
                f"start over"
            )
        self._phases = {name: packed.tobytes() for name, packed in state["phases"].items()}
        self.result, self.fit, self._spent = state["result"], state["fit"], state["seconds"]


# ------------------------------------------------------------------------------------------------ the file


def write(path: Path, state: Any) -> None:
    """Replace a file by a state, so that at every moment it is the old or the new one in full."""
    body = pack(state)
    with replacing(path) as beside:
        beside.write_bytes(MAGIC + f" {VERSION} {hashlib.sha256(body).hexdigest()}\n".encode() + body)


def read(path: Path) -> Any:
    """The state in a file.

    Raises:
        ModelError: not a checkpoint, of a newer version, or damaged.
    """
    head, _, body = path.read_bytes().partition(b"\n")
    words = head[len(MAGIC) :].split()
    if not head.startswith(MAGIC) or len(words) != 2 or not words[0].isdigit():
        raise ModelError(f"{str(path)!r} is not a checkpoint of decigrad, or its first line is damaged")
    if int(words[0]) > VERSION:
        raise ModelError(
            f"checkpoint {str(path)!r} has version {int(words[0])}, and this decigrad reads up to {VERSION}: "
            f"update decigrad"
        )
    if hashlib.sha256(body).hexdigest().encode() != words[1]:
        raise ModelError(
            f"checkpoint {str(path)!r} is damaged: its content does not have the SHA-256 that it was written "
            f"with. Restore it from a copy, or remove it to start over"
        )
    try:
        return unpack(body)
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ModelError(f"checkpoint {str(path)!r} cannot be read: {error}") from error


def pack(state: Any) -> bytes:
    """A tree of dicts, lists, numbers, texts and arrays as bytes."""
    arrays: dict[str, np.ndarray] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.ndarray | jax.Array):
            array = np.asarray(value)
            dtype = array.dtype.name
            if array.dtype.kind not in "biufc":  # bfloat16 and the like: no types of NumPy's
                array = array.view(f"u{array.dtype.itemsize}")
            arrays[str(len(arrays))] = array
            return {_ARRAY: len(arrays) - 1, "dtype": dtype}
        return value

    text = json.dumps(plain(state))
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, state=np.frombuffer(text.encode(), np.uint8), **arrays)
    return buffer.getvalue()


def unpack(body: bytes) -> Any:
    """The tree again, with NumPy arrays; tuples have become lists."""
    with np.load(io.BytesIO(body), allow_pickle=False) as file:

        def whole(value: Any) -> Any:
            if isinstance(value, dict):
                if _ARRAY in value:
                    return file[str(value[_ARRAY])].view(np.dtype(value["dtype"]))
                return {key: whole(item) for key, item in value.items()}
            return [whole(item) for item in value] if isinstance(value, list) else value

        return whole(json.loads(file["state"].tobytes()))


# ----------------------------------------------------------------------------------------- what is in a fit


def leaves(tree: Any) -> list[Any]:
    """The arrays of a pytree; random keys as their data."""
    return [jax.random.key_data(a) if _is_key(a) else a for a in jax.tree_util.tree_leaves(tree)]


def refilled(tree: Any, found: list[np.ndarray]) -> Any:
    """A pytree of the same structure with other arrays, of the same shapes and types.

    Raises:
        ModelError: they are not.
    """
    old, structure = jax.tree_util.tree_flatten(tree)
    expected = [(a.shape, a.dtype.name) for a in map(np.asarray, leaves(tree))]
    if [(a.shape, a.dtype.name) for a in found] != expected:
        raise ModelError("the checkpoint holds arrays of other shapes or types than this fit trains")
    new = [
        jax.random.wrap_key_data(jnp.asarray(a), impl=jax.random.key_impl(o))
        if _is_key(o)
        else jnp.asarray(a)
        for a, o in zip(found, old, strict=True)
    ]
    return jax.tree_util.tree_unflatten(structure, new)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def drawn(rng: Any) -> Any:
    """The state of a NumPy random generator.

    Raises:
        ModelError: it is none.
    """
    if isinstance(rng, np.random.Generator):
        return rng.bit_generator.state
    if isinstance(rng, np.random.RandomState):
        return rng.get_state(legacy=False)
    raise ModelError(
        f"a checkpoint saves the state of NumPy's generators, and the seed is a {type(rng).__name__}: pass "
        f"an int, numpy.random.default_rng(...), or no checkpoint"
    )


def redrawn(rng: Any, state: Any) -> None:
    """Put a NumPy random generator into a state."""
    if isinstance(rng, np.random.Generator):
        rng.bit_generator.state = state
    else:
        rng.set_state(state)
