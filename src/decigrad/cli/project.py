"""From a configuration to what is trained: the layer, the data on both sides of the split, the predictor."""

from __future__ import annotations

import difflib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

import decigrad as dg
from decigrad.cli.config import CompareSection, Config, DataSection, ModelSection
from decigrad.cli.shell import Output
from decigrad.errors import ModelError
from decigrad.sources import Table


@dataclass(frozen=True)
class Project:
    """What a configuration describes, read and checked."""

    config: Config
    layer: dg.DecisionLayer
    columns: dg.Columns
    folds: list[tuple[dg.Dataset, dg.Dataset]]
    """Training and test data; several of them for a walk-forward split."""
    notes: list[str] = field(default_factory=list)

    @property
    def train(self) -> dg.Dataset:
        """The training data; of a walk-forward split, those of the last fold."""
        return self.folds[-1][0]

    @property
    def test(self) -> dg.Dataset:
        """The test data that belong to `train`."""
        return self.folds[-1][1]

    @property
    def predictor(self) -> Any:
        """What is trained."""
        section = self.config.predictor
        kinds = {"linear": dg.Linear, "mlp": dg.MLP, "cnn": dg.CNN}
        return kinds[section.kind](**section.options())

    @property
    def ordered(self) -> bool:
        """Whether folds of the training data are blocks: its rows are in the order of time."""
        data = self.config.data
        by_time = data.split in ("time", "walk-forward") or data.test_file is not None
        return by_time and data.time is not None

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of `fit` that a comparison shares."""
        t = self.config.training
        selection: Any = {
            "cross-validation": dg.CrossValidation(t.folds, ordered=self.ordered),
            "hold-out": dg.HoldOut(ordered=self.ordered),
            "none": None,
        }[t.selection]
        return {
            "selection": selection,
            "epochs": t.epochs,
            "batch_size": t.batch_size,
            "learning_rate": t.learning_rate,
        }


def open_project(config: Config, output: Output) -> Project:
    """Read model and data.

    Raises:
        ModelError: the model's file lacks what is named, the table does not fit the roles or the model.
    """
    layer = layer_of(config.model, config.root)
    data = config.data
    source = Table.open(config.path(data.file))
    columns = roles_of(data).among(source.names)
    whole = dg.read_table(
        source, columns, layer, missing=data.missing_targets, censored=data.censored_targets
    )
    whole.check(layer)
    if data.labels is not None:
        solved = dg.label(whole, layer, config.path(data.labels), progress=output.progress, **pool_of(data))
        output.say(f"labels: {solved} of {len(whole)} were solved, the others were stored")
    notes = []
    if data.test_file is not None:
        other = dg.read_table(
            config.path(data.test_file), columns, layer,
            missing=data.missing_targets, censored=data.censored_targets,
        )  # fmt: skip
        other.check(layer)
        folds = [
            (whole if whole.times is None else whole.take(np.argsort(whole.times, kind="stable")), other)
        ]
        notes.append(f"tested on {data.test_file}")
    else:
        folds = divided(whole, data)
        notes.append(_split_in_words(data, folds))
    return Project(config, layer, columns, folds, notes)


def pool_of(section: DataSection | CompareSection) -> dict[str, Any]:
    """The workers of a section, as arguments; one is the caller itself."""
    if section.workers == 1:
        return {}
    return {"executor": section.executor, "workers": section.workers}


def layer_of(section: ModelSection, root: Path) -> dg.DecisionLayer:
    """The decision layer that a configuration names.

    Raises:
        ModelError: no such file or name, or it is no model.
    """
    if section.problem is not None:
        made = _member(dg.problems, section.problem, "decigrad.problems")
        found = made(**section.arguments)
    else:
        assert section.file is not None
        found = _member(_executed(root / section.file), section.name, section.file)
        if callable(found) and not isinstance(found, dg.DecisionLayer):
            found = found(**section.arguments)
        elif section.arguments:
            raise ModelError(f"model.arguments: {section.name!r} is no function, and takes none")
    if isinstance(found, dg.DecisionLayer):
        if section.solver != "auto":
            raise ModelError(f"model.solver = {section.solver!r}: a DecisionLayer has a solver of its own")
        return found
    if not isinstance(found, dg.Model):
        named = section.name if section.file else section.problem
        raise ModelError(f"{named!r} is a {type(found).__name__}, not a Model, a DecisionLayer or its maker")
    return dg.DecisionLayer(found, solver=section.solver)


def roles_of(data: DataSection) -> dg.Columns:
    """The roles of the columns."""
    return dg.Columns(
        data.features, data.targets, data.known, data.weight, data.time, data.group, data.censored
    )


def divided(whole: dg.Dataset, data: DataSection) -> list[tuple[dg.Dataset, dg.Dataset]]:
    """Training and test data by the split that is asked for."""
    share = 1.0 - data.test_fraction
    if data.split == "walk-forward":
        window: Any = {"gap": data.gap, "train": data.train_window, "test": data.test_window}
        return list(dg.walk_forward(whole, data.folds, **window))
    if data.split == "time":
        return [dg.time_split(whole, share, gap=data.gap)]
    if data.split == "group":
        return [dg.group_split(whole, share, seed=data.seed)]
    return [whole.split(share, seed=data.seed)]


def _split_in_words(data: DataSection, folds: list[tuple[dg.Dataset, dg.Dataset]]) -> str:
    train, test = folds[-1]
    text = {
        "walk-forward": f"walk-forward in {len(folds)} folds; each seed of a comparison is a fold",
        "time": "tested on what came after the training data",
        "group": "no group is on both sides of the split",
        "random": "training and test rows were drawn at random",
    }[data.split]
    gap = f", with a gap of {data.gap}" if data.gap and data.split in ("time", "walk-forward") else ""
    return f"{text}{gap} ({len(train)} and {len(test)} rows)"


def _executed(path: Path) -> Any:
    """A Python file of the user's as a module; what it raises is shown as it is."""
    if not path.exists():
        raise ModelError(f"there is no model file {path}")
    name = f"decigrad_project_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent.resolve()))  # it may import its neighbours
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ModelError(f"{path}, line {error.lineno}: {error.msg}") from None
    except ModelError as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = next(frame.lineno for frame in reversed(frames) if frame.filename == spec.origin)
        raise ModelError(f"{path}, line {line}: {error}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    cloudpickle.register_pickle_by_value(module)  # workers cannot import it
    return module


def _member(home: Any, name: str, where: str) -> Callable[..., Any]:
    if not hasattr(home, name):
        public = [n for n in dir(home) if not n.startswith("_")]
        near = difflib.get_close_matches(name, public, n=1)
        raise ModelError(f"{where} has no {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return getattr(home, name)
