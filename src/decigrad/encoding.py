"""Objects of known classes as JSON and arrays, and back: the one writer and the one reader of saved models.

What is written is a list of nodes, each a class of the table below and its fields, in which a node refers to
earlier ones by number; so what is shared stays shared, and depth is not limited. A field holds numbers, text,
lists, dicts, arrays (by number) and nodes. The reader makes objects of these classes alone, through their own
constructors, with fields of the types that they declare. Nothing of a file is ever executed.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from decigrad.compiled import float64
from decigrad.errors import ModelError
from decigrad.expressions.expression import Expression, apply
from decigrad.expressions.operations import OPERATIONS, Gather
from decigrad.model import Model

KNOWN = {
    "decigrad.expressions.expression": "Constant Variable Parameter Operated",
    "decigrad.expressions.operations": "Gather",
    "decigrad.expressions.constraint": "Constraint",
    "decigrad.model": "Model",
    "decigrad.layer": "DecisionLayer",
    "decigrad.solvers": "ActiveSet DAQP HiGHS InteriorPoint",
    "decigrad.gradients": "KKT Relaxed Smoothed RelaxationGradient FrankWolfe DavisYin BlackBox Identity "
    "Perturbed IMLE",
    "decigrad.oracles": "GridPath NodeGridPath DagPath GraphPath Knapsack MultiKnapsack Enumeration TopK "
    "Simplex Ranking Assignment SpanningTree IntervalScheduling TSP CVRP Portfolio Gurobi ORTools",
    "decigrad.oracles.fixed": "FixedArray",
    "decigrad.predictors": "LinearPredictor MLPPredictor CNNPredictor",
    "decigrad.tables": "Columns",
    "decigrad.policy": "Policy",
    "equinox.nn": "Linear Conv2d",
}
"""The classes that a file may hold, by module. `__name__` is what the file calls them."""

DTYPES = (
    "bool",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
)


@dataclass(frozen=True)
class Kind:
    """How a class is taken apart and put together: by its fields, and the types that they declare."""

    cls: type
    fields: tuple[str, ...]
    types: Mapping[str, Any]
    build: Callable[..., Any]

    def state(self, value: Any) -> dict[str, Any]:
        """The fields of an object."""
        renamed = {"solver": "asked"} if type(value).__name__ == "DecisionLayer" else {}
        return {name: getattr(value, renamed.get(name, name)) for name in self.fields}


@functools.cache
def kinds() -> dict[str, Kind]:
    """The table of known classes, by name."""
    found = {}
    for module, names in KNOWN.items():
        for name in names.split():
            found[name] = _kind(getattr(importlib.import_module(module), name))
    return found


def _kind(cls: type) -> Kind:
    if cls is Model:
        return _of_function(cls, Model.restored, Model.restored)
    if cls.__module__.startswith("equinox"):  # its constructors draw random weights
        names = tuple(f.name for f in dataclasses.fields(cls))
        return Kind(cls, names, {}, functools.partial(_filled, cls))
    if cls.__name__ == "Operated":
        return _of_function(cls, _operated, _operated)
    if dataclasses.is_dataclass(cls):
        names = tuple(f.name for f in dataclasses.fields(cls) if f.init)
        return Kind(cls, names, typing.get_type_hints(cls), cls)
    return _of_function(cls, cls.__init__, cls)  # type: ignore[misc]


def _of_function(cls: type, function: Callable[..., Any], build: Callable[..., Any]) -> Kind:
    names = tuple(n for n in inspect.signature(function).parameters if n != "self")
    return Kind(cls, names, typing.get_type_hints(function), build)


def _filled(cls: type, **fields: Any) -> Any:
    made: Any = object.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def _operated(
    operation: str, arguments: tuple[Expression, ...], attribute: Any, shape: tuple[int, ...]
) -> Expression:
    """An operation, checked as if it were stated now."""
    if operation not in OPERATIONS or not arguments or all(a.is_constant for a in arguments):
        raise ModelError(f"no operation {operation!r} of {len(arguments)} arguments")
    total = sum(math.prod(a.shape) for a in arguments)
    if isinstance(attribute, Gather):
        good = operation == "gather" and attribute.flat.size == math.prod(attribute.shape)
        good = good and attribute.flat.dtype.kind == "i" and attribute.flat.ndim == 1
        good = good and bool(((attribute.flat >= 0) & (attribute.flat < total)).all())
    elif operation == "power":
        good = isinstance(attribute, int | float)
    elif operation in ("sum", "max", "min"):
        good = attribute is None or (isinstance(attribute, int) and 0 <= attribute < arguments[0].ndim)
    else:
        good = attribute is None and operation != "gather"
    made = apply(operation, *arguments, attribute=attribute) if good else None
    if made is None or made.shape != shape:
        raise ModelError(f"operation {operation!r} does not fit its attribute, arguments or shape")
    return made


# ----------------------------------------------------------------------------------------------- writing


class Writer:
    """Collects nodes and arrays. `given` are objects of the user's that the reader will be given, by name."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.nodes: list[Any] = []
        self.arrays: list[np.ndarray] = []
        self._given = {id(value): name for name, value in given.items()}
        self._number: dict[int, int] = {}
        self._array_number: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no id is used twice

    def add(self, root: Any) -> Any:
        """The JSON value that stands for an object."""
        pending: list[tuple[Any, dict[str, Any] | None]] = [(value, None) for value in _objects(root)]
        while pending:
            value, state = pending.pop()
            if id(value) in self._number or id(value) in self._given:
                continue
            if state is None:
                state = self._state(value)
                pending.append((value, state))
                pending.extend((part, None) for part in reversed(list(_objects(list(state.values())))))
                continue
            self.nodes.append([type(value).__name__, {n: self._value(part) for n, part in state.items()}])
            self._number[id(value)] = len(self.nodes) - 1
            self._kept.append((value, state))
        return self._value(root)

    def _state(self, value: Any) -> dict[str, Any]:
        kind = kinds().get(type(value).__name__)
        if kind is None or type(value) is not kind.cls:
            raise ModelError(
                f"{_shown(value)} is not of a class that decigrad can write as data. A predictor or solver "
                f"of your own: save(path, given=('predictor',)) or ('solver',), and give it to load again"
            )
        return kind.state(value)

    def _value(self, value: Any) -> Any:
        if id(value) in self._given:
            leaves = [a for a in jax.tree_util.tree_leaves(value) if isinstance(a, np.ndarray | jax.Array)]
            return {"given": self._given[id(value)], "arrays": [self._value(a) for a in leaves]}
        if id(value) in self._number:
            return {"node": self._number[id(value)]}
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, bool | np.bool_):
            return bool(value)
        if isinstance(value, int | np.integer):
            return int(value)
        if isinstance(value, float | np.floating):
            return float(value) if math.isfinite(value) else {"float": repr(float(value))}
        if isinstance(value, tuple):
            return {"tuple": [self._value(v) for v in value]}
        if isinstance(value, list):
            return [self._value(v) for v in value]
        if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
            return {"dict": [[k, self._value(v)] for k, v in value.items()]}
        if isinstance(value, np.ndarray | jax.Array):
            return {"array" if isinstance(value, np.ndarray) else "jax": self._stored(value)}
        if name := _activation_name(value):
            return {"activation": name}
        raise ModelError(f"{_shown(value)} cannot be written as data")

    def _stored(self, array: Any) -> int:
        if id(array) not in self._array_number:
            host = np.asarray(array)
            if host.dtype.name not in DTYPES:
                raise ModelError(f"an array of {host.dtype} cannot be written; convert it to float64")
            self.arrays.append(host.astype(host.dtype.newbyteorder("<"), copy=False))
            self._array_number[id(array)] = len(self.arrays) - 1
            self._kept.append(array)
        return self._array_number[id(array)]


_ATOMS = (type(None), str, bool, int, float, np.generic, np.ndarray, jax.Array)


def _objects(value: Any) -> Iterator[Any]:
    """Objects of classes in a field, through lists, tuples and dicts."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _objects(part)
    elif isinstance(value, Mapping):
        yield from _objects(list(value.values()))
    elif not isinstance(value, _ATOMS) and not _activation_name(value):
        yield value


@functools.cache
def _activations() -> dict[int, str]:
    """Names of the functions of `jax.nn`, by identity."""
    return {id(getattr(jax.nn, name)): name for name in reversed(dir(jax.nn)) if name[0] != "_"}


def _activation_name(value: Any) -> str | None:
    return _activations().get(id(value))


def _shown(value: Any) -> str:
    kind = type(value)
    return f"{getattr(value, '__name__', kind.__qualname__)!r} ({kind.__module__}.{kind.__qualname__})"


# ----------------------------------------------------------------------------------------------- reading


class Reader:
    """Makes the objects of nodes and arrays; `given` are those of the user's."""

    def __init__(self, arrays: list[np.ndarray], given: Mapping[str, Any]) -> None:
        self._arrays, self._given = arrays, given
        self._made: list[Any] = []

    def read(self, nodes: Any, root: Any) -> Any:
        """The object that a JSON value stands for."""
        if not isinstance(nodes, list):
            raise ModelError("the nodes are not a list")
        for number, node in enumerate(nodes):
            try:
                name, fields = node
                kind = kinds()[name]
                if set(fields) != set(kind.fields):
                    raise ModelError(f"its fields are {sorted(fields)}, not {sorted(kind.fields)}")
                values = {n: self.value(v) for n, v in fields.items()}
                for field, value in values.items():
                    if not _fits(value, kind.types.get(field, Any)):
                        raise ModelError(f"field {field!r} is of a wrong type")
                self._made.append(kind.build(**values))
            except _BAD as error:
                shown = node[0] if isinstance(node, list) and node else node
                raise ModelError(f"node {number} ({shown!r:.60}) cannot be read: {error}") from error
        return self.value(root)

    def value(self, value: Any) -> Any:
        """One JSON value."""
        if isinstance(value, list):
            return [self.value(v) for v in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"given", "arrays"}:
            return self._restored(value["given"], [self.value(a) for a in value["arrays"]])
        ((tag, content),) = value.items()
        if tag == "node":
            return self._made[_index(content, len(self._made))]
        if tag == "tuple":
            return tuple(self.value(v) for v in content)
        if tag == "dict":
            if not all(isinstance(key, str) for key, _ in content):
                raise ModelError("a key of a dict is not text")
            return {key: self.value(v) for key, v in content}
        if tag == "float" and content in ("inf", "-inf", "nan"):
            return float(content)
        if tag == "array":
            return self._arrays[_index(content, len(self._arrays))]
        if tag == "jax":
            with float64():
                return jnp.asarray(self._arrays[_index(content, len(self._arrays))])
        if tag == "activation" and content in _activations().values():
            return getattr(jax.nn, content)
        raise ModelError(f"unknown value {tag!r}")

    def _restored(self, name: str, arrays: list[Any]) -> Any:
        if name not in self._given:
            raise ModelError(f"it was saved without its {name}: pass load(path, {name}=...)")
        leaves, structure = jax.tree_util.tree_flatten(self._given[name])
        places = [i for i, a in enumerate(leaves) if isinstance(a, np.ndarray | jax.Array)]
        have, stored = [leaves[i].shape for i in places], [a.shape for a in arrays]
        if have != stored:
            raise ModelError(f"the {name} has arrays of shape {have}, the file {stored}")
        for place, array in zip(places, arrays, strict=True):
            leaves[place] = array
        return jax.tree_util.tree_unflatten(structure, leaves) if places else self._given[name]


_BAD = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError)
"""What constructors raise on fields that make no sense; a `ModelError` is a ValueError."""


def _index(value: Any, count: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < count:
        raise ModelError(f"reference {value!r} points to nothing")
    return value


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value is of a declared type."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any or isinstance(annotation, typing.TypeVar):
        return True
    if annotation is None or annotation is type(None):
        return value is None
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, a) for a in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if inner[-1] is Ellipsis:
            return all(_fits(v, inner[0]) for v in value)
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if origin in (list, typing.Sequence) or (isinstance(origin, type) and issubclass(origin, list)):
        return isinstance(value, list) and all(_fits(v, inner[0]) for v in value)
    if isinstance(origin, type) and issubclass(dict, origin):
        return isinstance(value, dict) and all(_fits(v, inner[1]) for v in value.values())
    if isinstance(origin, type):  # collections.abc.Sequence and the like
        return isinstance(value, list | tuple) and all(_fits(v, inner[0]) for v in value)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(annotation, type) and not getattr(annotation, "_is_protocol", False):
        return isinstance(value, annotation)
    return True
