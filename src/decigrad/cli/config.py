"""The configuration of a project: TOML, validated, with errors that name the line and the nearest name."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticKnownError

from decigrad.errors import ModelError

UNITS = {"minute": 60, "hour": 3600, "day": 86400, "week": 604800}


def _span(value: Any) -> Any:
    """A number of rows, or "7 days" as a span of time."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+)\s*(minute|hour|day|week)s?\s*", value)
    if not found:
        raise ValueError('a number of rows, or a span such as "12 hours", "7 days", "2 weeks"')
    return timedelta(seconds=int(found[1]) * UNITS[found[2]])


def _method(name: str) -> str:
    """The name of a method of training."""
    from decigrad.registry import METHODS

    names = [*METHODS, "auto"]
    if name not in names:
        raise PydanticKnownError("literal_error", {"expected": ", ".join(map(repr, names))})
    return name


MethodName = Annotated[str, AfterValidator(_method)]
Span = Annotated[int | timedelta, BeforeValidator(_span)]
Names = str | list[str]
Kind = Literal["threads", "processes", "ray"]


class Section(BaseModel):
    """A table of the file: no other keys, no values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ModelSection(Section):
    """Where the model is: an object in a Python file, or one of the package's problems."""

    file: str | None = None
    name: str = "model"
    problem: str | None = None
    arguments: dict[str, Any] = {}
    solver: Literal["auto", "active-set", "daqp", "highs", "interior-point", "scip"] = "auto"

    @model_validator(mode="after")
    def _one(self) -> ModelSection:
        if (self.file is None) == (self.problem is None):
            raise ValueError('either file = "model.py" or problem = "newsvendor_model"')
        return self


class DataSection(Section):
    """The table, the roles of its columns, and what it is tested on."""

    file: str
    features: Names = "*"
    targets: dict[str, Names]
    known: dict[str, Names] = {}
    weight: str | None = None
    time: str | None = None
    group: str | None = None
    censored: str | None = None
    missing_targets: Literal["raise", "drop"] = "raise"
    censored_targets: Literal["raise", "drop"] = "raise"
    split: Literal["random", "time", "group", "walk-forward"] = "random"
    test_fraction: float = Field(default=0.25, gt=0, lt=1)
    test_file: str | None = None
    folds: int = Field(default=4, ge=1)
    gap: Span = 0
    train_window: Span | None = None
    test_window: Span | None = None
    seed: int = 0
    labels: str | None = None
    workers: int = Field(default=1, ge=1)
    executor: Kind = "processes"

    @model_validator(mode="after")
    def _fitting(self) -> DataSection:
        if self.split == "group" and self.group is None:
            raise ValueError('split = "group" needs group = "column"')
        used = {"time": ["gap"], "walk-forward": ["gap", "train_window", "test_window"]}.get(self.split, [])
        for name in ("gap", "train_window", "test_window"):
            if name in self.model_fields_set and name not in used:
                raise ValueError(f"split = {self.split!r} has no {name}")
        return self


class PredictorSection(Section):
    """The predictor, with the options of its kind."""

    kind: Literal["linear", "mlp", "cnn"] = "linear"
    bias: bool | None = None
    shared: bool | None = None
    hidden: list[int] | None = None
    activation: str | None = None
    width: int | None = None
    depth: int | None = None
    positive: bool | None = None

    @model_validator(mode="after")
    def _fitting(self) -> PredictorSection:
        allowed = {
            "linear": ["bias", "shared"],
            "mlp": ["hidden", "activation"],
            "cnn": ["width", "depth", "activation", "positive"],
        }[self.kind]
        for name in self.model_fields_set - {"kind", *allowed}:
            raise ValueError(f"kind = {self.kind!r} has no option {name!r}, but {', '.join(allowed)}")
        return self

    def options(self) -> dict[str, Any]:
        """What is set, for the predictor's class."""
        found = {name: getattr(self, name) for name in self.model_fields_set - {"kind"}}
        return {n: tuple(v) if isinstance(v, list) else v for n, v in found.items()}


class TrainingSection(Section):
    """How to train."""

    method: MethodName = "regret"
    epochs: int = Field(default=40, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=0.01, gt=0)
    selection: Literal["cross-validation", "hold-out", "none"] = "cross-validation"
    folds: int = Field(default=5, ge=2)
    seed: int = 0
    checkpoint: bool = True
    log: str | None = None


class CompareSection(Section):
    """What `decigrad compare` trains, and how often."""

    methods: list[MethodName] = Field(default=["two-stage", "mse", "regret"], min_length=1)
    seeds: int = Field(default=5, ge=1)
    workers: int = Field(default=1, ge=1)
    executor: Kind = "processes"


class OutputSection(Section):
    """Where the results go, and what they are called."""

    folder: str = "results"
    title: str = "Decisions"
    unit: str = ""


class Config(Section):
    """A whole file. `root` is its folder, which all paths in it are relative to."""

    model: ModelSection
    data: DataSection
    predictor: PredictorSection = PredictorSection()
    training: TrainingSection = TrainingSection()
    compare: CompareSection = CompareSection()
    output: OutputSection = OutputSection()
    root: Path = Field(default=Path("."), exclude=True)

    def path(self, name: str) -> Path:
        """A path of the file, relative to its folder."""
        return self.root / name

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return self.path(self.output.folder)


def read_config(path: Path) -> Config:
    """The configuration in a TOML file.

    Raises:
        ModelError: it is no TOML, or a key or value is wrong: file, line and the nearest valid name.
        OSError: it cannot be read.
    """
    if path.is_dir():
        path = path / "config.toml"
    text = path.read_text(encoding="utf-8")
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{path}: {error}") from None
    if "root" in content:
        raise ModelError(f"{path}, line {line_of(text, ['root'])}: there is no key 'root'")
    try:
        return Config(**content, root=path.parent)
    except ValidationError as error:
        raise ModelError("\n".join(_in_words(path, text, content, e) for e in error.errors())) from None


def _in_words(path: Path, text: str, content: dict[str, Any], error: Any) -> str:
    """One mistake: where it is, what is wrong and what was probably meant."""
    keys = _keys(content, error["loc"])
    where = f"{path}, line {line_of(text, keys)}: {'.'.join(keys)}" if keys else f"{path}:"
    kind, given = error["type"], error.get("input")
    if kind == "extra_forbidden":
        known = _fields(keys[:-1])
        what = "section" if len(keys) == 1 else "key"
        return f"{where} is no {what}{_nearest(keys[-1], known)}"
    if kind == "missing":
        missing = str(error["loc"][-1])
        if len(error["loc"]) == 1:
            return f"{path}: the section [{missing}] is missing"
        return f"{path}, line {line_of(text, keys)}: [{keys[0]}] lacks the key {missing!r}"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return f"{where} cannot be {given!r}{_nearest(str(given), known)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"{where}: {message}" + (f", got {given!r}" if not isinstance(given, dict) else "")


def _keys(content: dict[str, Any], location: Sequence[Any]) -> list[str]:
    """The part of an error's location that stands in the file."""
    found: list[str] = []
    at: Any = content
    for part in location:
        if not isinstance(at, dict) or part not in at:
            break
        found.append(str(part))
        at = at[part]
    return found


def _fields(keys: Sequence[str]) -> list[str]:
    """The keys that a section has."""
    if not keys:
        return [name for name in Config.model_fields if name != "root"]
    section: Any = Config.model_fields[keys[0]].annotation
    return list(section.model_fields)


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; it knows {', '.join(map(repr, known))}"


_HEADER = re.compile(r"^\s*\[+\s*([^\]\[]+?)\s*\]+\s*(#.*)?$")
_KEY = re.compile(r"""^\s*((?:"[^"]*"|'[^']*'|[\w-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w-]+))*)\s*=""")
_PART = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([\w-]+))\s*""")


def line_of(text: str, keys: Sequence[str]) -> int:
    """The line, from 1, where a key is set, or the innermost table around it that has a line of its own."""
    lines: dict[tuple[str, ...], int] = {(): 1}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _dotted(header[1])
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            full = (*table, *_dotted(key[1]))
            for size in range(len(table) + 1, len(full) + 1):
                lines.setdefault(full[:size], number)
    path = tuple(keys)
    while path not in lines:
        path = path[:-1]
    return lines[path]


def _dotted(text: str) -> tuple[str, ...]:
    return tuple(next(part for part in found if part) for found in _PART.findall(text) if any(found))
