"""Kinds of workers: threads, processes, actors of Ray, an executor of the user's; and what runs in them.

What is sent to a worker with a memory of its own, and what it gives, are bytes: pickled with cloudpickle, so
that functions of a script or a notebook travel too, and read with JAX in float64, so that nothing is rounded.
A worker keeps what several jobs share; where it has lost it, it says so and is sent it again.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax

from decigrad.batching import share_of_cores
from decigrad.errors import ModelError

HELD = 16
"""Functions, with what their jobs share, that a worker keeps."""
SETTINGS = (
    "jax_platforms",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
)
"""Settings of JAX that a worker takes over from the caller, beside float64."""


class Backend(ABC):
    """How workers are started, told what to do, and ended: each is an executor of one worker."""

    apart = True
    """Workers have a memory of their own: what they get and give travels as bytes."""
    redone = 3
    """How often a job is done again whose worker died; then the job is taken for the reason."""

    def cores(self) -> int:
        """How many workers there are by default."""
        from loky import cpu_count

        return int(cpu_count())

    @abstractmethod
    def open(self) -> Executor:
        """A new worker."""

    def close(self, worker: Executor) -> None:
        """End a worker."""
        worker.shutdown(cancel_futures=True)

    def lost(self, error: BaseException) -> bool:
        """Whether the worker died, rather than that its job raised something."""
        return isinstance(error, BrokenExecutor)

    def put(self, content: bytes) -> Any:
        """What is sent in place of bytes that several workers get."""
        return content


@dataclass(frozen=True)
class Threads(Backend):
    """Threads of this process: for solvers that leave Python's lock while they solve, as HiGHS does."""

    apart = False

    def open(self) -> Executor:
        """A thread."""
        return ThreadPoolExecutor(1, thread_name_prefix="decigrad")


@dataclass(frozen=True)
class Processes(Backend):
    """Processes of this machine, started afresh and never forked; scripts need no `__main__` guard.

    Args:
        threads: of each worker, for linear algebra and compiled code.
    """

    threads: int = 1

    def __post_init__(self) -> None:
        _check_threads(self.threads)

    def open(self) -> Executor:
        """A process."""
        from loky import ProcessPoolExecutor

        libraries = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {name: str(self.threads) for name in libraries}
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # workers share a GPU
        environment["LOKY_MAX_MEMORY_LEAK_SIZE"] = "1e18"  # compiled code is no leak
        return ProcessPoolExecutor(
            1, env=environment, initializer=_begin, initargs=(self.threads, _settings(), os.getpid())
        )

    def close(self, worker: Any) -> None:
        """Kill it: whatever it still does is not wanted any more."""
        worker.shutdown(kill_workers=True)


@dataclass(frozen=True)
class Ray(Backend):
    """Actors of a Ray cluster. Extra: `decigrad[ray]`, on every machine of the cluster.

    Args:
        address: of the cluster, as `ray.init` takes it; None: the one that `ray.init` has connected to, or
            else this machine.
        cpus: cores that Ray sets aside for each worker; a fraction leaves room for other tasks.
        threads: as for `Processes`.
    """

    address: str | None = None
    cpus: float = 0.5
    threads: int = 1

    redone = 1  # Ray itself does a job again three times

    def __post_init__(self) -> None:
        _check_threads(self.threads)
        if not self.cpus > 0:
            raise ModelError(f"Ray: cpus must be positive, got {self.cpus}")

    def _ray(self) -> Any:
        try:
            import ray
        except ImportError as error:
            raise ImportError("Ray is not installed: pip install 'decigrad[ray]'") from error
        if not ray.is_initialized():
            ray.init(address=self.address, include_dashboard=None if self.address else False)
        return ray

    def cores(self) -> int:
        """The cores of the cluster."""
        return max(int(self._ray().cluster_resources().get("CPU", 1)), 1)

    def open(self) -> Executor:
        """An actor, which Ray restarts where it dies."""
        ray = self._ray()
        options = {"num_cpus": self.cpus, "max_restarts": -1, "max_task_retries": 3}
        return _Actor(ray, ray.remote(_Servant).options(**options).remote(self.threads, _settings()))

    def lost(self, error: BaseException) -> bool:
        """Whether Ray gave the job up."""
        ray = self._ray()
        return isinstance(error, ray.exceptions.RayError) and not isinstance(
            error, ray.exceptions.RayTaskError
        )

    def put(self, content: bytes) -> Any:
        """A reference: the cluster stores the bytes once."""
        return self._ray().put(content)


class _Servant:
    """What an actor runs."""

    def __init__(self, threads: int, settings: dict[str, Any]) -> None:
        _begin(threads, settings)

    def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


class _Actor(Executor):
    """An actor as an executor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        found: Future[Any] = self._actor.do.remote(function, *arguments).future()
        return found

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._ray.kill(self._actor)


@dataclass(frozen=True)
class Given(Backend):
    """An executor of the user's, which is neither started nor ended here."""

    executor: Executor

    @property
    def apart(self) -> bool:  # type: ignore[override]
        """All but threads have a memory of their own."""
        return not isinstance(self.executor, ThreadPoolExecutor)

    def open(self) -> Executor:
        """The executor."""
        return self.executor

    def close(self, worker: Executor) -> None:
        """Leave it."""

    def lost(self, error: BaseException) -> bool:
        """Nothing here can replace its workers."""
        return False


KINDS: dict[str, Callable[[], Backend]] = {"threads": Threads, "processes": Processes, "ray": Ray}


def backend(executor: Any) -> Backend | None:
    """What an `executor=` stands for; None: the caller's own thread.

    Raises:
        ModelError: it is none of what can be one.
    """
    if executor is None or isinstance(executor, Backend):
        return executor
    if isinstance(executor, Executor):
        return Given(executor)
    if isinstance(executor, str) and executor in KINDS:
        return KINDS[executor]()
    raise ModelError(
        f"executor must be None, {', '.join(map(repr, KINDS))}, Processes(), Ray(), a Pool or a "
        f"concurrent.futures.Executor, got {executor!r}"
    )


def _check_threads(threads: int) -> None:
    if threads < 1:
        raise ModelError(f"threads of a worker must be at least 1, got {threads}")


# --------------------------------------------------------------------------------------- in a worker

_HELD: OrderedDict[bytes, Any] = OrderedDict()


def together(function: Callable[..., Any], shared: Any, item: Any, wide: bool) -> Any:
    """A job in a thread; JAX's float64 setting is one of a thread."""
    with jax.enable_x64(wide):
        return function(shared, item)


def apart(key: bytes, content: bytes | None, item: bytes, wide: bool) -> bytes:
    """A job in a process: ("done", result, ""), ("raised", exception, traceback) or ("missing", None, "")."""
    if content is None and key not in _HELD:
        return pickled(("missing", None, ""))
    with _Caught() as caught:
        if key not in _HELD:
            _HELD[key] = unpickled(content)
        _HELD.move_to_end(key)
        while len(_HELD) > HELD:
            _HELD.popitem(last=False)
        function, shared = _HELD[key]
        return pickled(("done", together(function, shared, unpickled(item), wide), ""))
    error = caught.error
    text = "".join(traceback.format_exception(error))
    with _Caught():
        packed = pickled(("raised", error, text))
        unpickled(packed)  # not every exception comes out again
        return packed
    return pickled(("raised", RuntimeError(f"{type(error).__name__}: {error}"), text))


class _Caught:
    """Keeps the exception that ends a block, to be sent to the caller."""

    error: Exception | None = None

    def __enter__(self) -> _Caught:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if isinstance(error, Exception):
            self.error = error
        return self.error is not None


def pickled(value: Any) -> bytes:
    """A value as bytes, for a worker or for the caller."""
    import cloudpickle

    found: bytes = cloudpickle.dumps(value)
    return found


def unpickled(content: Any) -> Any:
    """The value again."""
    import cloudpickle

    with jax.enable_x64(True):  # outside, JAX would round the arrays of a pickle to float32
        return cloudpickle.loads(content)


def _settings() -> dict[str, Any]:
    return {name: jax.config.values[name] for name in SETTINGS}


def _begin(threads: int, settings: dict[str, Any], parent: int | None = None) -> None:
    """Before a worker's first job: its threads, its settings, and that it ends with its parent."""
    if threads == 1:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    os.environ.setdefault(
        "NPROC", str(max(threads, 2))
    )  # XLA's pool; one of a single thread can block on a callback
    share_of_cores(threads)
    for name, value in settings.items():
        jax.config.update(name, value)
    if parent is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its workers
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
