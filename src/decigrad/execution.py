"""Jobs on several workers, in order, whatever becomes of a worker.

    with Pool("processes", 4) as pool:
        for result in pool.map(function, shared, [("first", item), ("second", item)]): ...

gives what a loop over `function(shared, item)` gives: the same results, in the same order. A worker gets
`function` and `shared` once and keeps them, so that what they build (a compiled step, a solver's model) is
built once in each, and no live solver travels. Few jobs are ahead of the caller, so that items and results
never pile up. A worker that dies is replaced and its jobs are done again; what a job raises is raised by
the caller, at the job's turn, with the job's name and the worker's traceback.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from functools import cached_property
from typing import Any

import jax
import numpy as np

from decigrad import solving
from decigrad.errors import ModelError
from decigrad.workers import (
    KINDS,
    Backend,
    Given,
    Processes,
    Ray,
    Threads,
    apart,
    backend,
    pickled,
    together,
    unpickled,
)

__all__ = ["Pool", "Processes", "Ray", "Threads", "distributed", "opened"]


class Pool:
    """Workers, opened when they are needed and ended with the block.

    Args:
        executor: None (the caller's own thread), "threads", "processes", "ray", `Processes()`, `Ray()`, or a
            `concurrent.futures.Executor`, which stays open.
        workers: how many; by default one for each core.

    An open pool can be the `executor` of several calls, which then share its workers and what these have
    compiled.

    Raises:
        ModelError: no such executor; workers without one, or fewer than one.
    """

    def __init__(self, executor: Any = None, workers: int | None = None) -> None:
        self.backend = backend(executor)
        if workers is not None and workers < 1:
            raise ModelError(f"workers must be at least 1, got {workers}")
        if self.backend is None and workers not in (None, 1):
            raise ModelError(f"workers={workers} needs an executor: {', '.join(map(repr, KINDS))}")
        self.workers = 1 if self.backend is None else workers or self.backend.cores()
        # An executor of the user's is one place for all its workers.
        self._each = self.workers if isinstance(self.backend, Given) else 1
        self._places = [_Place() for _ in range(self.workers // self._each)]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        for place in self._places:
            if self.backend is not None and place.worker is not None:
                self.backend.close(place.worker)
            place.worker = None

    def map(
        self,
        function: Callable[[Any, Any], Any],
        shared: Any,
        items: Iterable[tuple[str, Any]],
        bounded: bool = True,
        kind: Callable[[Any], Any] | None = None,
    ) -> Iterator[Any]:
        """`function(shared, item)` for every item, in their order.

        Args:
            function: importable, or a closure.
            shared: what all jobs have in common.
            items: each with a name, for errors; taken as workers need them.
            bounded: at most two jobs for each worker are begun and not yet handed to the caller. False for
                few and long jobs: each begins as soon as a worker is free.
            kind: of an item. Workers prefer jobs of kinds that they have done, for which they have compiled.
        """
        if self.backend is None:
            return (function(shared, item) for _, item in items)
        jobs = (_Job(name, item, None if kind is None else kind(item)) for name, item in items)
        return self._map(self.backend, _Parcel(self.backend, function, shared), jobs, bounded)

    def _map(self, backend: Backend, parcel: _Parcel, source: Iterator[_Job], bounded: bool) -> Iterator[Any]:
        waiting = deque[_Job]()
        most = self._each * (2 if bounded else 1)
        try:
            while True:
                room = 2 * self.workers - len(waiting) if bounded else None
                waiting.extend(itertools.islice(source, room))
                while (place := min(self._places, key=_Place.load)).load() < most:
                    job = self._next(waiting, place)
                    if job is None:
                        break
                    place.start(job, backend, parcel)
                if not waiting:
                    return
                if not waiting[0].done:
                    ended, _ = wait([job.future for job in waiting if job.future], None, FIRST_COMPLETED)
                    for job in waiting:
                        if job.future in ended:
                            job.settle(backend)
                    continue
                job = waiting.popleft()
                if job.error is not None:
                    raise job.error
                yield job.result
        finally:
            for job in waiting:
                if job.future:
                    job.future.cancel()

    def _next(self, waiting: Iterable[_Job], place: _Place) -> _Job | None:
        """The job to begin at a place: of a kind done there, else of a new kind, else the first."""
        sound = itertools.takewhile(lambda job: job.error is None, waiting)  # a loop would end at an error
        ready = [job for job in sound if not (job.done or job.future)]
        done = set().union(*(other.kinds for other in self._places))
        own = (job for job in ready if job.kind in place.kinds)
        new = (job for job in ready if job.kind not in done)
        return next(itertools.chain(own, new, ready), None)

    def solve(self, solver: Any, *batch: Any) -> Any:
        """`solver(*batch)`, in as many contiguous parts as there are workers.

        The leaves of the arguments have a leading axis of B, or of 1 where samples share them; those are sent
        once. The leaves of the answer have one of B. Answers of a solver depend on a sample's own data alone,
        so the parts are to the bit what the whole would be.
        """
        count = max(len(leaf) for leaf in jax.tree_util.tree_leaves(batch))
        cuts = np.linspace(0, count, min(self.workers, count) + 1).round().astype(int).tolist()
        if len(cuts) < 3:
            return solver(*batch)
        leaves, structure = jax.tree_util.tree_flatten(batch)
        moving = [leaf for leaf in leaves if len(leaf) == count]
        place = itertools.count()  # a number stands for what is sent by part
        marked: list[Any] = [next(place) if len(leaf) == count else leaf for leaf in leaves]
        skeleton = jax.tree_util.tree_unflatten(structure, marked)
        items = (
            (f"samples {a} to {b - 1} of a batch", [leaf[a:b] for leaf in moving])
            for a, b in itertools.pairwise(cuts)
        )
        parts = self.map(_solved, (solver, skeleton), items)
        return jax.tree_util.tree_map(lambda *found: np.concatenate(found), *parts)


def _solved(shared: tuple[Any, Any], item: list[Any]) -> Any:
    solver, skeleton = shared
    filled = jax.tree_util.tree_map(lambda leaf: item[leaf] if isinstance(leaf, int) else leaf, skeleton)
    return solver(*filled)


@contextlib.contextmanager
def opened(executor: Any, workers: int | None) -> Iterator[Pool]:
    """The pool for one call: the one that is given, or one that is closed after it."""
    if not isinstance(executor, Pool):
        with Pool(executor, workers) as pool:
            yield pool
    elif workers not in (None, executor.workers):
        raise ModelError(f"workers={workers}, but the pool that is given has {executor.workers}")
    else:
        yield executor


@contextlib.contextmanager
def distributed(executor: Any, workers: int | None) -> Iterator[None]:
    """Solves on the host are cut into parts for a pool of workers, in this block."""
    with opened(executor, workers) as pool, solving.by(None if pool.backend is None else pool.solve):
        yield


class _Place:
    """A worker, or none yet, what it has been given, and kinds of jobs that it has been asked for."""

    def __init__(self) -> None:
        self.worker: Executor | None = None
        self.held: set[bytes] = set()
        self.kinds: set[Any] = set()
        self._begun: list[Future[Any]] = []

    def load(self) -> int:
        """Jobs that have not ended."""
        self._begun = [future for future in self._begun if not future.done()]
        return len(self._begun)

    def start(self, job: _Job, backend: Backend, parcel: _Parcel) -> None:
        """Begin a job."""
        if self.worker is None:
            self.worker = backend.open()
        job.place, job.worker = self, self.worker
        self.kinds.add(job.kind)
        wide = jax.dtypes.canonicalize_dtype(np.float64) == np.float64
        work: tuple[Any, ...] = together, parcel.function, parcel.shared, job.item, wide
        if backend.apart:
            known = parcel.key in self.held and not job.missed
            work = apart, parcel.key, None if known else parcel.sent, pickled(job.item), wide
            self.held.add(parcel.key)
        try:
            job.future = self.worker.submit(*work)
        except BrokenExecutor as error:  # it died with nothing to do
            job.future = Future()
            job.future.set_exception(error)
        self._begun.append(job.future)

    def replace(self, dead: Executor, backend: Backend) -> None:
        """Be without the dead worker, if it is still this one."""
        if self.worker is dead:
            backend.close(dead)
            self.worker = None
            self.held.clear()
            self.kinds.clear()


class _Job:
    """One item: where it is done, and what became of it."""

    def __init__(self, name: str, item: Any, kind: Any) -> None:
        self.name, self.item, self.kind = name, item, kind
        self.place: Any = None
        self.worker: Any = None
        self.future: Future[Any] | None = None
        self.missed = self.done = False
        self.lost = 0
        self.result: Any = None
        self.error: BaseException | None = None

    def settle(self, backend: Backend) -> None:
        """Take what the worker gave; where it died, or lacks what was shared, the job is to be done again."""
        assert self.future is not None
        future, self.future = self.future, None
        error = future.exception()
        if error is not None and backend.lost(error):
            self.place.replace(self.worker, backend)
            self.lost += 1
            if self.lost <= backend.redone:
                return
            error.add_note(
                f"{self.name}: the worker died {self.lost} times (out of memory? a crash of a solver?)"
            )
        elif error is not None:
            error.add_note(f"raised by the job {self.name!r}")
        elif backend.apart:
            kind, self.result, text = unpickled(future.result())
            if kind == "missing":
                self.missed = True
                return
            if kind == "raised":
                error = self.result
                error.add_note(f"raised by the job {self.name!r} in a worker:\n\n{text}")
        else:
            self.result = future.result()
        self.error, self.done, self.item = error, True, None


class _Parcel:
    """A function and what its jobs share."""

    def __init__(self, backend: Backend, function: Callable[..., Any], shared: Any) -> None:
        self.function, self.shared, self._backend = function, shared, backend

    @cached_property
    def content(self) -> bytes:
        return pickled((self.function, self.shared))

    @cached_property
    def key(self) -> bytes:
        return hashlib.sha256(self.content).digest()

    @cached_property
    def sent(self) -> Any:
        return self._backend.put(self.content)
