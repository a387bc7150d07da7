"""A short name for the content of a value: equal in another process exactly where the value is.

Arrays count by their bytes, dataclasses by their fields, functions by their code and what they close over,
other objects by their attributes, those of compiled code by what a pickle holds of them; memory addresses
and the order of sets never count.
"""

from __future__ import annotations

import copyreg
import enum
import functools
import hashlib
import pickle
import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.layer import DecisionLayer


def digest(*values: Any) -> str:
    """SHA-256 of values, in hexadecimal."""
    return hashlib.sha256(_described(values, {})).hexdigest()


Seen = dict[int, tuple[Any, bytes]]
"""Descriptions of objects by id, with the objects, so that no other one gets the id meanwhile."""


def _described(value: Any, seen: Seen) -> bytes:
    """A description of a value, as the digest of its type and parts."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # optax's schedules turn 20 into 20.0 in what they close over, once they are used
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return _joined(type(value).__name__, repr(value).encode())
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        array = np.asarray(value)
        if array.dtype != object and not array.dtype.names:
            return _joined("array", array.dtype.name.encode(), repr(array.shape).encode(), array.tobytes())
        fields = array.dtype.names  # what lies between fields is no content
        value = {name: array[name] for name in fields} if fields else array.tolist()
    if isinstance(value, type | types.ModuleType | np.dtype):
        return _joined("name", _name(value).encode())
    if isinstance(value, enum.Enum):
        return _joined(_name(type(value)), value.name.encode())
    if id(value) not in seen:
        seen[id(value)] = value, b"circle"  # what a part finds that leads back here
        found = _joined(_name(type(value)), *(_described(part, seen) for part in _parts(value, seen)))
        seen[id(value)] = value, found
    return seen[id(value)][1]


def _parts(value: Any, seen: Seen) -> list[Any]:
    """What makes up a value that is not a number, a text or an array."""
    if isinstance(value, DecisionLayer):
        values = {name: p.value for name, p in value.parameters.items()}
        asked = value.model.structure(), value.predicts, value.throw
        return [*asked, values, value.solver, value.gradient]
    if isinstance(value, Mapping):
        return [part for item in value.items() for part in item]
    if isinstance(value, set | frozenset):
        return sorted(_described(part, seen) for part in value)
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, types.FunctionType):
        closed = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
        return [value.__code__, value.__defaults__, value.__kwdefaults__, closed]
    if isinstance(value, types.CodeType):
        return [value.co_name, value.co_code, value.co_names, value.co_consts]
    if is_dataclass(value):
        return [part for f in fields(value) if f.compare for part in (f.name, getattr(value, f.name, None))]
    if callable(value) and hasattr(value, "__wrapped__"):
        return [_name(value), value.__wrapped__]
    if callable(value) and hasattr(value, "__qualname__"):
        return [_name(value)]
    slots = [n for kind in type(value).__mro__ for n in _slots(kind) if hasattr(value, n)]
    if not slots and not hasattr(value, "__dict__"):
        return _reduced(value)
    return [{**getattr(value, "__dict__", {}), **{name: getattr(value, name) for name in slots}}]


def _reduced(value: Any) -> list[Any]:
    """What a pickle holds of an object; nothing where there are none of its kind."""
    reduce = copyreg.dispatch_table.get(type(value), lambda it: it.__reduce_ex__(4))
    try:
        found = reduce(value)
    except (TypeError, pickle.PicklingError):
        return []
    parts = [found] if isinstance(found, str) else found
    return [list(part) if isinstance(part, Iterator) else part for part in parts]


def _slots(kind: type) -> tuple[str, ...]:
    names = kind.__dict__.get("__slots__", ())
    return (names,) if isinstance(names, str) else tuple(names)


def _filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"


def _joined(kind: str, *parts: bytes) -> bytes:
    found = hashlib.sha256(kind.encode())
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part)
    return found.digest()
