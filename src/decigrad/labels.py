"""Labels: the best decisions under the true parameters, solved once, in chunks that are kept on disk.

A store is a folder. Inside, a folder for each model and solver (by the digest of what they are), and in it a
file for each chunk of samples, named by the SHA-256 of its bytes. A sample is found by the digest of its own
parameters: of a subset, another split or a table with new rows at its end, only the new rows are solved.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import logging
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from decigrad.data import Dataset
from decigrad.errors import ModelError, SolveError
from decigrad.execution import opened
from decigrad.files import replacing
from decigrad.fingerprint import digest
from decigrad.layer import DecisionLayer
from decigrad.program import RawResult, Status, gives_multipliers
from decigrad.progress import tracked
from decigrad.solution import Solutions, count_kinks

FORMAT = 1
PARTS = tuple(f.name for f in dataclasses.fields(RawResult))
_log = logging.getLogger("decigrad")


def label(
    data: Dataset,
    layer: DecisionLayer,
    store: str | Path | None = None,
    *,
    executor: Any = None,
    workers: int | None = None,
    chunk: int = 256,
    progress: bool | None = None,
) -> int:
    """Solve for the optimal decisions of all samples now, so that `fit`, `evaluate` and `compare` need not.

    They find them by content, for this dataset and all that is taken or split from it. With a `store` every
    finished chunk is kept on disk: a run that was killed goes on with the next one, and another run, or
    another split of the same table, solves nothing again. Several runs may share a store.

    Samples that fail are not stored, but tried again. A chunk that is damaged is reported and computed again;
    where the disk is full, a warning says so and labels stay in memory.

    Args:
        data: the samples.
        layer: the decision layer; labels are those of its exact decisions.
        store: a folder, made where it is missing; None keeps the labels in memory.
        executor: who solves the chunks: None (this thread), "threads" (for `HiGHS`, which runs outside of
            Python's lock), "processes", "ray", or what else `decigrad.execution.Pool` takes, or such a pool.
            The labels are the same.
        workers: how many; by default one for each core.
        chunk: samples solved between two writings.
        progress: a progress bar; by default where the terminal shows one.

    Returns:
        How many samples were solved.

    Raises:
        ModelError: data that do not fit the layer; `workers` without an executor.
        SolveError: a sample fails, and the layer has `throw=True`; those solved before it stay stored.
    """
    data.check(layer)
    if chunk < 1:
        raise ModelError(f"label: chunk must be at least 1, got {chunk}")
    exact = layer.exact
    labels = data.labels = data.labels if isinstance(data.labels, Labels) else Labels()
    known, keys = labels.of(exact), sample_keys(data)
    folder = None if store is None else Store(Path(store) / known.key)
    if folder is not None:
        stored: set[bytes] = set()
        for found in folder.read():
            known.add(found)
            stored.update(found.keys.tolist())
        remembered = known.chunk(key for key in keys if key not in stored)
        if remembered is not None:
            folder.write(remembered)
    missing = np.array([i for i, key in enumerate(keys) if key not in known.place], int)
    parts = [missing[i : i + chunk] for i in range(0, len(missing), chunk)]

    def asked() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        for part in parts:
            # A device solver compiles once for each size of a batch: the last chunk is filled up.
            rows = part if exact.solver.host or len(parts) == 1 else np.resize(part, chunk)
            name = f"labels of samples {part[0]} to {part[-1]}"
            yield name, {n: a[rows] for n, a in data.parameters.items()}

    with opened(executor, workers) as pool:
        solved = pool.map(_solved, exact, asked())
        for part, (raw, handed_on) in zip(tracked(parts, "labels", progress), solved, strict=True):
            # NumPy's own strings lose zeros at the end.
            names = np.array([keys[i] for i in part], dtype=object)
            found = Chunk(names, raw, handed_on).take(slice(len(part)))
            good = found.raw.status == Status.OPTIMAL
            if folder is not None:
                folder.write(found.take(good))
            known.add(found)
            if layer.throw and not good.all():
                _refuse(exact, data, int(part[np.argmin(good)]))
    return len(missing)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Solved samples: their keys [n], bytes of 32, and the solver's answers."""

    keys: np.ndarray
    raw: RawResult
    handed_on: np.ndarray

    def take(self, index: Any) -> Chunk:
        """Some of the samples."""
        raw = RawResult(**{part: np.asarray(getattr(self.raw, part))[index] for part in PARTS})
        return Chunk(self.keys[index], raw, self.handed_on[index])


class Known:
    """The labels of one layer, by sample."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.place: dict[bytes, tuple[int, int]] = {}
        self._chunks: list[Chunk] = []

    def add(self, chunk: Chunk) -> None:
        """Remember a chunk, where there is anything new in it."""
        if all(key in self.place for key in chunk.keys.tolist()):
            return
        number = len(self._chunks)
        self._chunks.append(chunk)
        self.place |= {key: (number, row) for row, key in enumerate(chunk.keys.tolist())}

    def chunk(self, keys: Iterable[bytes]) -> Chunk | None:
        """Those of these samples that are known and solved, each once; None where there are none."""
        names = [key for key in dict.fromkeys(keys) if key in self.place]
        found = self.raw(names) if names else None
        if found is None:
            return None
        solved = Chunk(np.array(names, dtype=object), *found)
        return solved.take(solved.raw.status == Status.OPTIMAL)

    def raw(self, keys: list[bytes]) -> tuple[RawResult, np.ndarray] | None:
        """The answers for these samples and which were handed on; None where one is not known."""
        if not all(key in self.place for key in keys):
            return None
        starts = np.cumsum([0, *(len(chunk.keys) for chunk in self._chunks)])
        index = [starts[number] + row for number, row in map(self.place.__getitem__, keys)]

        def gathered(arrays: list[Any]) -> np.ndarray:
            return np.concatenate([np.asarray(a) for a in arrays])[index]

        raw = {part: gathered([getattr(chunk.raw, part) for chunk in self._chunks]) for part in PARTS}
        return RawResult(**raw), gathered([chunk.handed_on for chunk in self._chunks])


class Labels:
    """What `label` has found, by layer; a dataset and what is taken from it share one."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}

    def of(self, exact: DecisionLayer) -> Known:
        """The labels of a layer, whatever its derivative."""
        values = {name: p.value for name, p in exact.parameters.items()}
        key = digest("labels", FORMAT, version("decigrad"), exact.model.structure(), values, exact.solver)
        return self._known.setdefault(key, Known(key))

    def solutions(self, exact: DecisionLayer, data: Dataset) -> Solutions | None:
        """The solutions of all samples, as `layer.solve` gives them; None where one is not known."""
        found = self.of(exact).raw(sample_keys(data))
        if found is None:
            return None
        started = time.perf_counter()
        raw, handed_on = found
        program, lead = exact.programs(data.parameters)
        many = gives_multipliers(exact.solver)
        return Solutions(
            x=exact.form.split(raw.x),
            objective=exact.sign * np.asarray(program.objective(raw.x)),
            duals=exact.form.multipliers(raw.y, raw.z, raw.w) if many else {},
            status=raw.status,
            stats={
                "solver": exact.solver.name,
                "why": exact.why,
                "iterations": raw.iterations,
                "seconds": time.perf_counter() - started,
                "kinks": count_kinks(program, raw) if many else np.zeros(lead, int),
                "handed_on": handed_on,
            },
            program=program,
            raw=raw,
            gradient=exact.gradient,
        )


class Store:
    """The chunks of one layer in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._full = False

    def read(self) -> Iterator[Chunk]:
        """All chunks that are whole; the others are removed with a warning."""
        for path in sorted(self.folder.glob("*.npz")):
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != path.stem:
                _log.warning("labels: %s is damaged; its samples are solved again", path)
                path.unlink(missing_ok=True)
                continue
            with np.load(io.BytesIO(content), allow_pickle=False) as kept:
                raw = RawResult(**{part: kept[part] for part in PARTS})
                keys = np.array([key.tobytes() for key in kept["keys"]], dtype=object)
                yield Chunk(keys, raw, kept["handed_on"])

    def write(self, chunk: Chunk) -> None:
        """Store a chunk in one step; where that fails, say so once and go on without."""
        if self._full or not len(chunk.keys):
            return
        buffer = io.BytesIO()
        keys = np.array([np.frombuffer(key, np.uint8) for key in chunk.keys])
        parts = {part: getattr(chunk.raw, part) for part in PARTS}
        np.savez(buffer, keys=keys, handed_on=chunk.handed_on, **parts)
        content = buffer.getvalue()
        name = hashlib.sha256(content).hexdigest()
        try:
            with replacing(self.folder / f"{name}.npz") as beside:
                beside.write_bytes(content)
        except OSError as error:
            self._full = True
            _log.warning("labels are not stored from here on: %s", error)


def sample_keys(data: Dataset) -> list[bytes]:
    """SHA-256 of each sample's parameters."""
    parts = sorted(data.parameters.items())
    head = ";".join(f"{name}{list(array.shape[1:])}" for name, array in parts).encode()
    flat = [np.ascontiguousarray(a, np.float64).reshape(len(data), -1) for _, a in parts]
    rows = np.concatenate(flat, axis=1)
    return [hashlib.sha256(head + row.tobytes()).digest() for row in rows]


def _solved(exact: DecisionLayer, parameters: dict[str, np.ndarray]) -> tuple[RawResult, np.ndarray]:
    """A chunk: the solver's answers, and which samples were handed on."""
    solved = exact.solve(parameters, throw=False)
    return solved.raw, solved.stats["handed_on"]


def _refuse(exact: DecisionLayer, data: Dataset, sample: int) -> None:
    """Raise the error of a sample, by its position in the data."""
    try:
        exact.solve({n: a[sample] for n, a in data.parameters.items()}, throw=True)
    except SolveError as error:
        error.add_note(f"this is sample {sample} of the data")
        raise
    raise SolveError(f"sample {sample} of the data failed in its batch, and not alone")
