"""The house rules that a machine can check: ranks of the rooms, imports, sizes, error handling.

The map is in `docs/design.md`. A file may import files of a lower rank and files of its own room, nothing
else; so every derivative, loss and solver has one place, and the dependency graph has no cycle.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
PACKAGE = "decigrad"

# Files and packages directly under src/decigrad: (rank, room). Those that share a room may import each other.
ROOMS: dict[str, tuple[int, str]] = {
    "errors": (-1, "errors"),  # below everything: exception classes, no imports
    "files": (-1, "files"),  # the same: files that are replaced as a whole
    "program": (0, "program"),
    "kkt": (0, "program"),
    "batching": (0, "program"),
    "native": (0, "program"),
    "expressions": (0, "expressions"),
    "canonical": (1, "canonical"),
    "solvers": (1, "solvers"),
    "oracles": (1, "oracles"),
    "gradients": (2, "gradients"),
    "model": (3, "model"),
    "compiled": (3, "model"),
    "solution": (3, "model"),
    "solving": (3, "model"),
    "display": (3, "model"),
    "layer": (3, "model"),
    "differentiable": (3, "model"),
    "modeling": (3, "model"),
    "execution": (4, "execution"),
    "workers": (4, "execution"),
    "losses": (4, "losses"),
    "data": (4, "data"),
    "sources": (4, "data"),
    "splits": (4, "data"),
    "tables": (4, "data"),
    "predictors": (4, "predictors"),
    "regressors": (4, "predictors"),
    "training": (5, "training"),
    "selection": (5, "training"),
    "steps": (5, "training"),
    "registry": (5, "training"),
    "trainer": (5, "training"),
    "lanes": (5, "training"),
    "placement": (5, "training"),
    "reuse": (5, "training"),
    "warm": (5, "training"),
    "progress": (5, "training"),
    "phases": (5, "training"),
    "callbacks": (5, "training"),
    "checkpoint": (5, "training"),
    "fingerprint": (5, "training"),
    "labels": (5, "training"),
    "evaluation": (5, "training"),
    "policy": (5, "policy"),
    "deciding": (5, "policy"),
    "archive": (5, "policy"),
    "streaming": (5, "policy"),
    "encoding": (5, "policy"),
    "problems": (6, "problems"),
    "interop": (7, "interop"),
    "torch": (7, "torch"),
    "cli": (7, "cli"),
}

# The only imports between rooms of one rank: (importer, imported).
SIDEWAYS = {("predictors", "data"), ("predictors", "splits"), ("losses", "data"), ("oracles", "solvers")}

# The public namespace collects from every rank; the command line may start from it.
EXEMPT = {"__init__", "__main__"}
# Written as a user would write them, so they may import the namespace itself (`import decigrad as dg`).
MAY_IMPORT_TOP_LEVEL = {"problems", "interop", "cli"}

MAX_LINES = 400
# path under src/decigrad → why it is longer than that
LONG_FILES: dict[str, str] = {}

# path under src/decigrad → what it must learn from the environment
ENVIRONMENT_READERS = {
    "batching.py": "NPROC sets the size of XLA's thread pool, which JAX does not tell",
    "workers.py": "sets the threads of a worker process, where XLA looks for them",
}

# Imports inside a function that close a circle within a room, with the reason.
DEFERRED = {
    ("decigrad.expressions.expression", "decigrad.expressions.constraint"): "a comparison makes a constraint",
    ("decigrad.expressions.expression", "decigrad.expressions.printing"): "messages show expressions",
    ("decigrad.solvers.highs", "decigrad.solvers.diagnosis"): "a proof of failure is a linear program itself",
}

# Optional, or slow to import (0.2 to 4 seconds each): imported where they are used.
HEAVY = [
    "clarabel",
    "cvxpy",
    "daqp",
    "equinox",
    "flax",
    "gurobipy",
    "highspy",
    "jinja2",
    "loky",
    "matplotlib",
    "optax",
    "ortools",
    "pandas",
    "polars",
    "pyarrow",
    "pydantic",
    "pyscipopt",
    "ray",
    "rich",
    "scipy",
    "mlflow",
    "skfolio",
    "sklearn",
    "starlette",
    "tensorboardX",
    "torch",
    "typer",
    "uvicorn",
]


@dataclass(frozen=True)
class Import:
    """One import of a module of the package: where it stands, what it names, and whether it runs at all."""

    line: int
    target: str
    typing_only: bool


def source_files() -> list[Path]:
    return sorted((SOURCE / PACKAGE).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(SOURCE / PACKAGE).as_posix()


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in source_files()}
EACH_FILE = pytest.mark.parametrize("path", source_files(), ids=relative)


def imports_of(path: Path) -> Iterator[Import]:
    """Imports of decigrad's own modules in one file, inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                root = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*root, *([base] if base else [])])
            # `from decigrad.solvers import daqp` names a module, `from decigrad.errors import X` a class.
            names = [f"{base}.{alias.name}" for alias in node.names]
            targets = [name if name in MODULES else base for name in names]
        else:
            continue
        for target in dict.fromkeys(targets):
            if target.split(".")[0] == PACKAGE:
                yield Import(node.lineno, target, id(node) in typing_only)


def unit(module: str) -> str:
    """The file or package directly under src/decigrad that a module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@EACH_FILE
def test_every_file_has_a_rank(path: Path) -> None:
    name = relative(path).split("/")[0].removesuffix(".py")
    assert name in ROOMS or name in EXEMPT, (
        f"src/{PACKAGE}/{relative(path)} has no rank: add {name!r} to ROOMS in tests/test_architecture.py "
        "and to the table of rooms in docs/design.md, at the lowest rank that its imports allow"
    )


@EACH_FILE
def test_imports_go_down_the_ranks(path: Path) -> None:
    importer = relative(path).split("/")[0].removesuffix(".py")
    if importer in EXEMPT or importer not in ROOMS:
        return
    rank, room = ROOMS[importer]
    wrong = []
    for item in imports_of(path):
        target = unit(item.target)
        if target == "__init__":
            if importer not in MAY_IMPORT_TOP_LEVEL:
                wrong.append(
                    f"line {item.line}: the public namespace; import the module that defines the name"
                )
        elif target not in ROOMS:
            wrong.append(f"line {item.line}: {item.target}, which has no rank")
        elif ROOMS[target][1] != room and ROOMS[target][0] >= rank and (room, target) not in SIDEWAYS:
            wrong.append(f"line {item.line}: {item.target} (rank {ROOMS[target][0]})")
    assert not wrong, f"{relative(path)} has rank {rank} and may import lower ranks only:\n" + "\n".join(
        wrong
    )


@EACH_FILE
def test_private_modules_stay_in_their_room(path: Path) -> None:
    importer = relative(path).split("/")[0].removesuffix(".py")
    if importer in EXEMPT or importer not in ROOMS:
        return
    wrong = [
        f"line {item.line}: {item.target}"
        for item in imports_of(path)
        if any(part.startswith("_") and not part.startswith("__") for part in item.target.split("."))
        and ROOMS.get(unit(item.target), (0, ""))[1] != ROOMS[importer][1]
    ]
    assert not wrong, f"{relative(path)} reaches into a private module of another room:\n" + "\n".join(wrong)


def test_modules_do_not_import_in_a_circle() -> None:
    graph = {
        name: {item.target for item in imports_of(path) if not item.typing_only} & MODULES.keys() - {name}
        for name, path in MODULES.items()
        if name != PACKAGE  # the namespace imports everything; nothing below rank 6 imports it
    }
    for importer, target in DEFERRED:
        assert target in graph.get(importer, ()), f"DEFERRED: {importer} does not import {target} any more"
        graph[importer].discard(target)
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "circular import: " + " → ".join((*trail[trail.index(name) :], name))
        if name in done or name not in graph:
            return
        for target in sorted(graph[name]):
            visit(target, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


@EACH_FILE
def test_files_are_short_or_say_why(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if relative(path) in LONG_FILES:
        assert lines > MAX_LINES, f"{relative(path)} is short now: remove it from LONG_FILES"
    else:
        assert lines <= MAX_LINES, (
            f"{relative(path)} has {lines} lines: split it by meaning, or give the reason in LONG_FILES"
        )


def test_long_files_exist() -> None:
    missing = [name for name in LONG_FILES if not (SOURCE / PACKAGE / name).exists()]
    assert not missing, f"LONG_FILES names files that are gone: {missing}"


@EACH_FILE
def test_no_error_is_swallowed(path: Path) -> None:
    """`except:` and `except Exception` hide the failure of a solver as if it were an answer."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            for kind in kinds:
                broad = kind is None or (
                    isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"}
                )
                assert not broad, f"{relative(path)}, line {node.lineno}: name the exceptions that are meant"


def run_python(code: str) -> str:
    """Standard output of a fresh interpreter: this one has imported everything already."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light() -> None:
    code = f"import json, sys, decigrad; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    loaded = json.loads(run_python(code))
    assert not loaded, f"`import decigrad` imports {', '.join(loaded)}: import it where it is used"


def test_import_changes_no_global_state() -> None:
    code = """
import os, warnings
import jax, numpy, numpy.random, jax.numpy
def state():
    seed = numpy.random.get_state()
    return {
        "jax": dict(jax.config.values),
        "numpy errors": numpy.geterr(),
        "numpy print options": {k: repr(v) for k, v in numpy.get_printoptions().items()},
        "random": (seed[1].tolist(), *seed[2:]),
        "warnings": list(map(repr, warnings.filters)),
        "environment": dict(os.environ),
    }
before = state()
import decigrad
after = state()
changed = [key for key in before if before[key] != after[key]]
assert not changed, f"import decigrad changes {changed}"
"""
    run_python(code)


def test_no_environment_switches() -> None:
    """An answer depends on arguments; a switch in the environment is an argument that nobody sees."""
    wrong = {
        relative(path)
        for path in source_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    }
    unexplained = sorted(wrong - ENVIRONMENT_READERS.keys())
    assert not unexplained, f"{unexplained} read the environment: make it an argument"
