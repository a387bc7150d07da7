"""Systems in processes of their own, timed in turn; what a run found is kept by cell, so it can be resumed.

Each system has one process on one core, threads pinned, which builds, calls and times; this side only
says whose turn it is. So packages cannot disturb each other, a call that hangs or dies costs its own cell
alone, and noise of the machine meets all systems alike: they take their repetitions in turn.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

TABLES = Path(__file__).parent / "tables"
JOURNAL = Path(__file__).parents[1] / "reports" / "bench"

BEGIN, END = "<!-- in short -->", "<!-- in full -->"
"""Around the part of a table that docs/speed.md includes."""

_PINNED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


class Failure(Exception):
    """A process did not answer: it raised, died, or took too long and was ended. Its text says which."""


def pinned(cores: int = 1) -> dict[str, str]:
    """The environment in which a process, and the libraries in it, use so many threads."""
    eigen = "--xla_cpu_multi_thread_eigen=false" if cores == 1 else ""
    kept = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "multi_thread_eigen" not in flag]
    return {
        **dict.fromkeys(_PINNED, str(cores)),
        "XLA_FLAGS": " ".join([*kept, eigen]).strip(),
        "NPROC": str(max(2, cores)),  # with one thread of XLA's a callback can wait for itself
        "JAX_PLATFORMS": "cpu",
        "TQDM_DISABLE": "1",
    }


def _confined(cores: int) -> int:
    """Keep this process on so many cores, before anything is imported that counts them; its id.

    It ends with its parent, however that ends.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    threading.Thread(target=_outlive, args=(os.getppid(),), daemon=True).start()
    return os.getpid()


def _outlive(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


class Process:
    """One process for `ask(function, ...)`, started when first asked, and again after it was ended."""

    def __init__(self, cores: int = 1) -> None:
        self._cores = cores
        self._pool: ProcessPoolExecutor | None = None
        self._id = 0

    def ask(self, function: Callable[..., Any], *arguments: Any, limit: float) -> Any:
        """`function(*arguments)` over there. Raises Failure, after `limit` seconds at the latest."""
        if self._pool is None:
            self._start()
        assert self._pool is not None
        asked = self._pool.submit(function, *arguments)
        try:
            error = asked.exception(limit)
        except TimeoutError:
            self.end(at_once=True)
            raise Failure(f"over {limit:.0f} s") from None
        if isinstance(error, BrokenProcessPool):
            self.end()
            raise Failure("its process died")
        if error is not None:
            raise Failure(f"{type(error).__name__}: {error}") from error
        return asked.result()

    def _start(self) -> None:
        before = dict(os.environ)
        os.environ.update(pinned(self._cores))
        try:
            self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
            self._id = self._pool.submit(_confined, self._cores).result()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def end(self, at_once: bool = False) -> None:
        """End the process, if there is one; `at_once`, whatever it is doing."""
        if self._pool is not None:
            if at_once:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._id, signal.SIGKILL)
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


# ---------------------------------------------------------------------------------------------- journal


@dataclass
class Journal:
    """Results by key, one JSON file each, valid for the same settings only."""

    folder: Path
    settings: dict[str, Any]
    fresh: bool = False
    _seen: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.fresh and self.folder.exists():
            for path in [*self.folder.glob("*.json"), *self.folder.glob("*.npz")]:
                path.unlink()

    def __contains__(self, key: str) -> bool:
        return self._read(key) is not None

    def __getitem__(self, key: str) -> Any:
        found = self._read(key)
        if found is None:
            raise KeyError(key)
        return found

    def __setitem__(self, key: str, found: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._seen[key] = found
        text = json.dumps({"settings": self.settings, "found": found}, indent=1)
        whole = self.folder / f"{key}.part"
        whole.write_text(text + "\n", encoding="utf-8")
        whole.replace(self.folder / f"{key}.json")

    def _read(self, key: str) -> Any:
        path = self.folder / f"{key}.json"
        if key not in self._seen and path.exists():
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["settings"] == json.loads(json.dumps(self.settings)):
                self._seen[key] = stored["found"]
        return self._seen.get(key)


# ---------------------------------------------------------------------------------------- what it ran on


def machine() -> str:
    """Cores and instruction set of this machine, and nothing else of it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    kind = {"AMD64": "x86-64", "x86_64": "x86-64"}.get(platform.machine(), platform.machine())
    best = ""
    if kind == "x86-64" and Path("/proc/cpuinfo").exists():
        flags = set(
            re.findall(r"\w+", Path("/proc/cpuinfo").read_text(encoding="utf-8").split("flags", 1)[-1])
        )
        best = next((f" with {n}" for f, n in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if f in flags), "")
    return f"{cores} core{'s' * (cores != 1)}, {kind}{best}"


@functools.cache
def library() -> str:
    """A digest of decigrad's own files: what another state of it took is measured again."""
    digest = hashlib.sha256()
    source = Path(__file__).parents[1] / "src" / "decigrad"
    for path in sorted([*source.rglob("*.py"), *source.rglob("*.so")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of the packages that are installed, Python's first."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def described(found: dict[str, str]) -> str:
    """Machine and versions in one paragraph."""
    return f"Machine: {machine()}. " + ", ".join(f"{name} {v}" for name, v in found.items()) + "."


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, minimum and quartiles."""
    array = np.asarray(list(values), float)
    low, high = np.quantile(array, [0.25, 0.75])
    return {"median": float(np.median(array)), "min": float(array.min()), "q1": float(low), "q3": float(high)}


def slope(sizes: Iterable[float], costs: Iterable[float]) -> float:
    """The exponent p of cost ≈ size^p: least squares in log-log."""
    return float(np.polyfit(np.log(list(sizes)), np.log(list(costs)), 1)[0])


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def save(out: Path, name: str, text: str, found: Any) -> None:
    """`name.md` and `name.json`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(text.rstrip() + "\n", encoding="utf-8")
    (out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def draw(figure: Any, path: Path) -> None:
    """Write a picture: the same file from the same picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
