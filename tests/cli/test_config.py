"""The configuration: what it accepts, and errors that name the line and what was probably meant."""

from datetime import timedelta
from pathlib import Path

import pytest

import decigrad as dg
from decigrad.cli.config import line_of, read_config
from decigrad.cli.new import write_project

MINIMAL = """\
[model]
file = "model.py"

[data]
file = "data.csv"
targets = { price = "p*" }
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_fill_a_minimal_file(tmp_path):
    config = read_config(written(tmp_path, MINIMAL))
    assert config.data.features == "*" and config.training.method == "regret"
    assert config.folder == tmp_path / "results" and config.path("data.csv") == tmp_path / "data.csv"
    assert read_config(tmp_path) == config  # the folder will do


def test_the_starter_is_valid_and_sets_what_it_shows(tmp_path):
    write_project(tmp_path / "p")
    config = read_config(tmp_path / "p" / "config.toml")
    assert config.data.targets == {"price": ["price_wind", "price_solar", "price_gas", "price_grid"]}
    assert (config.data.split, config.training.folds, config.compare.seeds) == ("time", 4, 3)
    text = (tmp_path / "p" / "config.toml").read_text()
    for comment in ('# gap = "7 days"', '# labels = "labels"'):  # what is commented out is valid too
        text = text.replace(comment, comment[2:])
    config = read_config(written(tmp_path, text))
    assert config.data.gap == timedelta(days=7) and config.data.labels == "labels"


@pytest.mark.parametrize(
    ("given", "span"),
    [("3", 3), ('"3 days"', timedelta(3)), ('"12 hours"', timedelta(hours=12)), ('"1 week"', timedelta(7))],
)
def test_spans_are_rows_or_time(given, span, tmp_path):
    assert read_config(written(tmp_path, MINIMAL + f'split = "time"\ngap = {given}\n')).data.gap == span


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("targets", "target", 6, "data.target is no key; did you mean 'targets'?"),
        ("targets", "target", 4, "[data] lacks the key 'targets'"),
        ("[model]", "[modell]", 1, "modell is no section; did you mean 'model'?"),
        (
            'file = "model.py"',
            'file = "model.py"\nsolver = "dapq"',
            3,
            "cannot be 'dapq'; did you mean 'daqp'?",
        ),
        ('file = "model.py"', "file = 3", 2, "model.file: input should be a valid string, got 3"),
        ('file = "model.py"', 'nmae = "m"', 2, "model.nmae is no key; did you mean 'name'?"),
        ('file = "model.py"', 'file = "m"\nproblem = "p"', 1, 'model: either file = "model.py" or problem'),
        (MINIMAL, MINIMAL + "\n[training]\nepochs = 0\n", 9, "training.epochs: input should be greater than"),
        (
            MINIMAL,
            MINIMAL + "\n[training]\nepochs = 2.5\n",
            9,
            "training.epochs: input should be a valid integer",
        ),
        (MINIMAL, MINIMAL + '\n[training]\nmethod = "a"\nepoch = 3', 10, "did you mean 'epochs'?"),
        (
            MINIMAL,
            MINIMAL + "\ntraining.batch = 3",
            8,
            "data.training is no key; did you mean 'train_window'?",
        ),
        (MINIMAL, MINIMAL + '\n[predictor]\nkind = "mpl"\n', 9, "did you mean 'mlp'?"),
        (
            MINIMAL,
            MINIMAL + '\n[predictor]\nkind = "linear"\nhidden = [3]\n',
            8,
            "has no option 'hidden', but bias",
        ),
        (
            MINIMAL,
            MINIMAL + 'gap = "a while"\n',
            7,
            'data.gap: a number of rows, or a span such as "12 hours"',
        ),
        (
            MINIMAL,
            MINIMAL + "test_fraction = 1.5\n",
            7,
            "data.test_fraction: input should be less than 1, got 1.5",
        ),
        (MINIMAL, MINIMAL + 'split = "group"\n', 4, 'data: split = "group" needs group = "column"'),
        (MINIMAL, MINIMAL + "gap = 3\n", 4, "data: split = 'random' has no gap"),
        (MINIMAL, MINIMAL + 'split = "time"\ntest_window = 3\n', 4, "split = 'time' has no test_window"),
        (
            MINIMAL,
            MINIMAL + '[training]\nmethod = "regert"\n',
            8,
            "cannot be 'regert'; did you mean 'regret'?",
        ),
        (MINIMAL, MINIMAL + '[compare]\nmethods = ["spo"]\n', 8, "cannot be 'spo'; did you mean 'spo+'?"),
        (MINIMAL, MINIMAL + "[compare]\nmethods = []\n", 8, "compare.methods: list should have at least 1"),
        (MINIMAL, MINIMAL + "[data.known]\nload = 7\n", 8, "data.known.load: input should be a valid"),
    ],
)
def test_mistakes_are_located_and_named(old, new, line, message, tmp_path):
    path = written(tmp_path, MINIMAL.replace(old, new, 1))
    with pytest.raises(dg.ModelError) as caught:
        read_config(path)
    lines = str(caught.value).splitlines()
    assert any(one.startswith(f"{path}, line {line}: ") and message in one for one in lines), lines


def test_a_section_that_is_missing_and_text_that_is_no_toml(tmp_path):
    with pytest.raises(dg.ModelError, match=r"the section \[data\] is missing"):
        read_config(written(tmp_path, '[model]\nfile = "m.py"\n'))
    with pytest.raises(dg.ModelError, match=r"config\.toml: .*line 2"):
        read_config(written(tmp_path, "[model]\nfile = \n"))
    with pytest.raises(dg.ModelError, match="line 1: there is no key 'root'"):
        read_config(written(tmp_path, 'root = "/"\n' + MINIMAL))
    with pytest.raises(FileNotFoundError):
        read_config(tmp_path / "nowhere.toml")


def test_lines_of_keys_in_every_spelling():
    text = '# c\n[a]\n"x y" = 1\nb.c = 2  # [not]\n\n[a.d]\ne = [\n  1,\n]\nf = { g = 1 }\n[[h]]\ni = 1\n'
    expected = {"a": 2, "a/x y": 3, "a/b": 4, "a/b/c": 4, "a/d/e": 7, "a/d/f/g": 10, "h/i": 12, "q": 1}
    assert {key: line_of(text, key.split("/")) for key in expected} == expected
