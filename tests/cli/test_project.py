"""The newcomer's path, end to end: new → train → report → decide → serve, nothing edited on the way."""

import csv
import http.client
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import decigrad as dg
from decigrad import native, phases
from decigrad.cli import app, training
from decigrad.cli.config import ModelSection, read_config
from decigrad.cli.new import starter_table
from decigrad.cli.project import layer_of, open_project
from decigrad.cli.results import read_results
from decigrad.cli.shell import Output
from decigrad.evaluation import judge

RUN = CliRunner()
pytestmark = pytest.mark.timeout(300)  # a whole project is trained, and a server is started
SKIPPED = ("day", "status", "fallback")
SOURCES = ["wind", "solar", "gas", "grid"]
CAPACITY, RISING = np.array([60.0, 50.0, 40.0, 80.0]), np.array([0.10, 0.15, 0.40, 0.30])


def invoke(*arguments: Any, code: int = 0) -> Any:
    """Run a command; its standard output, read as JSON where that was asked for."""
    done = RUN.invoke(app, [str(a) for a in arguments])
    assert done.exit_code == code, (done.output, done.exception)
    return json.loads(done.stdout) if "--json" in arguments else done


def rows_of(path: Path) -> dict[str, np.ndarray]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(r[name]) for r in rows]) for name in rows[0] if name not in SKIPPED}


def cheapest(price: np.ndarray, load: float) -> np.ndarray:
    """min price·x + ½ Σ rising·x² with Σx = load, 0 ≤ x ≤ capacity: by bisection on the marginal price."""
    low, high = price.min(), (price + RISING * CAPACITY).max()
    for _ in range(200):
        middle = (low + high) / 2
        x = np.clip((middle - price) / RISING, 0.0, CAPACITY)
        low, high = (middle, high) if x.sum() < load else (low, middle)
    return x


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter project, as it is, trained."""
    folder = tmp_path_factory.mktemp("newcomer") / "power"
    invoke("new", folder)
    told = invoke("train", folder / "config.toml", "--json")
    assert told["policy"] == str(folder / "results" / "policy.decigrad") and not told["interrupted"]
    assert told["methods"]["regret"]["failed"] == 0
    return folder


def test_new_writes_a_project_once_and_reproducibly(project, tmp_path):
    invoke("new", tmp_path / "again")
    for name in ("config.toml", "model.py", "README.md", "data.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (project / name).read_bytes()
    assert "is not empty" in invoke("new", project, code=2).stderr
    assert starter_table(seed=1) != starter_table() == (project / "data.csv").read_text()


def test_train_judges_on_days_that_come_after(project):
    data, title = read_results(project / "results" / "training.json")
    table = rows_of(project / "data.csv")
    test = np.stack([table[f"price_{s}"][-91:] for s in SOURCES], axis=1)
    run = data.runs["regret"][0].evaluation
    np.testing.assert_array_equal(run.true["price"], test)
    assert title == "Power purchase" and data.unit == "€"
    for day in (0, 17, 90):  # the regret it reports, from scratch
        load = table["load"][-91 + day]
        cost = [
            test[day] @ x + 0.5 * RISING @ x**2
            for x in (cheapest(run.predicted["price"][day], load), cheapest(test[day], load))
        ]
        assert run.regret[day] == pytest.approx(cost[0] - cost[1], abs=1e-6)
    assert not (project / "results" / "training.checkpoint").exists()


def test_report_is_one_page_with_every_method(project):
    told = invoke("report", project, "--json")
    page = Path(told["report"]).read_text()
    assert told["report"] == str(project / "results" / "report.html")
    assert "Power purchase" in page and "two-stage" in page and "regret" in page
    assert not re.search(r"""(src|href)=["']https?://""", page)  # opens without a network


def test_decide_and_serve_give_the_same_decisions(project):
    policy, out = project / "results" / "policy.decigrad", project / "decisions.csv"
    invoke("decide", policy, project / "data.csv", "--out", out, "--quiet")
    table, decided = rows_of(project / "data.csv"), rows_of(out)
    buys = np.stack([decided[f"buy[{i}]"] for i in range(4)], axis=1)
    assert len(buys) == 365
    predicted = dg.Policy.load(policy).predict(
        np.stack([table[n] for n in ("temperature", "wind", "sun", "weekend", "load")], axis=1)
    )["price"]
    for day in (0, 100, 364):
        np.testing.assert_allclose(buys[day], cheapest(predicted[day], table["load"][day]), atol=1e-6)

    command = [sys.executable, "-m", "decigrad", "serve", str(policy), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        first = server.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", first)
        assert found, first
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
        features = [
            [table[n][i] for n in ("temperature", "wind", "sun", "weekend", "load")] for i in range(40)
        ]
        body = {"features": features, "known": {"load": table["load"][:40].tolist()}}
        connection.request("POST", "/decide", json.dumps(body))
        answer = json.loads(connection.getresponse().read())
        connection.close()
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
    np.testing.assert_array_equal(np.array(answer["decisions"]["buy"]), buys[:40])  # to the last bit


def test_evaluate_agrees_with_training_and_can_be_a_check(project, tmp_path):
    header, *rows = (project / "data.csv").read_text().splitlines()
    table = tmp_path / "test.csv"
    table.write_text("\n".join([header, *rows[-91:]]))
    policy = project / "results" / "policy.decigrad"
    told = invoke("evaluate", policy, table, "--json")
    data, _ = read_results(project / "results" / "training.json")
    regret = data.estimate("regret", "mean_regret").mean
    assert told["passed"] and told["summary"]["mean_regret"] == pytest.approx(regret, rel=1e-9)
    assert invoke("evaluate", policy, table, "--max-regret", regret / 2, "--json", code=1)["passed"] is False
    done = invoke("evaluate", policy, table, "--max-regret", regret / 2, "--quiet", code=1)
    assert done.stdout == "" and "is above" in done.stderr
    dear = [*rows[:3], re.sub(r"[^,]+$", "900", rows[3])]
    table.write_text("\n".join([header, *dear]))
    assert "rows without a decision: 3" in invoke("evaluate", policy, table, "-q", code=1).stderr
    table.write_text("\n".join([header.replace("wind,sun", "wnd,sun"), *rows[-5:]]))
    assert "no column 'wind' (did you mean 'wnd'?)" in invoke("evaluate", policy, table, code=2).stderr


def changed(project: Path, folder: Path, **changes: str) -> Path:
    """A copy of the project with other lines in its configuration."""
    folder.mkdir(parents=True)
    for name in ("model.py", "data.csv"):
        (folder / name).write_bytes((project / name).read_bytes())
    text = (project / "config.toml").read_text()
    for key, value in changes.items():
        text, count = re.subn(rf"(?m)^{key} = [^#\n]*", f"{key} = {value}", text)
        assert count == 1, key
    (folder / "config.toml").write_text(text)
    return folder / "config.toml"


def test_compare_walks_forward_and_reports(project, tmp_path):
    walk = '"walk-forward"\nfolds = 2\ngap = "2 days"\ntest_window = "30 days"\ntrain_window = "200 days"'
    config = changed(
        project, tmp_path / "p", split=walk, selection='"none"', epochs="1", methods='["two-stage", "regret"]'
    )
    config.write_text(config.read_text().replace("folds = 4", ""))
    told = invoke("compare", config, "--json")
    assert list(told["methods"]) == ["two-stage", "regret"]
    assert told["methods"]["regret"]["verdict"]["kind"] in ("gain", "loss", "tie")
    data, _ = read_results(tmp_path / "p" / "results" / "comparison.json")
    assert data.seeds == [0, 1] and "walk-forward in 2 folds" in data.notes[0]
    table = rows_of(tmp_path / "p" / "data.csv")
    for fold, last in ((0, 335), (1, 365)):
        truth = data.runs["regret"][fold].evaluation.true["load"]
        np.testing.assert_array_equal(truth, table["load"][last - 30 : last])
    assert invoke("report", tmp_path / "p", "--json")["results"].endswith("comparison.json")


def test_an_interrupted_training_goes_on_to_the_same_policy(project, tmp_path, monkeypatch):
    quick = {"selection": '"none"\nlog = "epochs.jsonl"', "epochs": "3"}
    whole, broken = (changed(project, tmp_path / name, **quick) for name in ("whole", "broken"))
    invoke("train", whole, "--quiet")
    log = [json.loads(line) for line in (tmp_path / "whole" / "epochs.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log if line["phase"] == "training"] == [1, 2, 3]

    def stop(event: Any) -> None:
        if event.phase == "training" and event.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "_logs", lambda config: [stop])
    told = invoke("train", broken, "--json", code=1)
    assert told["interrupted"] and (tmp_path / "broken" / "results" / "training.checkpoint").exists()
    monkeypatch.undo()
    told = invoke("train", broken, "--json")
    assert told["resumed"] and not told["interrupted"]
    ends = [(tmp_path / n / "results" / "policy.decigrad").read_bytes() for n in ("whole", "broken")]
    assert ends[0] == ends[1]


def test_diagnose_is_that_of_the_training_part(project, tmp_path):
    config = changed(project, tmp_path / "p", seed="3")
    page = tmp_path / "p" / "diagnosis.html"
    told = invoke("diagnose", config, "--report", page, "--json")
    table = rows_of(tmp_path / "p" / "data.csv")
    train = dg.Dataset(
        np.stack([table[n][:274] for n in ("temperature", "wind", "sun", "weekend", "load")], axis=1),
        {"price": np.stack([table[f"price_{s}"][:274] for s in SOURCES], axis=1)},
        {"load": table["load"][:274]},
    )
    layer = layer_of(ModelSection(file="model.py"), tmp_path / "p")
    expected = dg.diagnose(layer, train, folds=4, ordered=True, seed=3, unit="€", progress=False).as_dict()
    assert told == {**expected, "report": str(page)} and told["samples"] == 274
    text = re.sub("<[^>]*>", "", page.read_text())
    assert "Power purchase: will it help?" in text and told["verdict"].removeprefix("It may help. ") in text


def test_an_interrupted_comparison_goes_on_with_the_fits_that_are_left(project, tmp_path, monkeypatch):
    quick = {"selection": '"none"', "epochs": "1", "seeds": "1"}
    config = changed(project, tmp_path / "p", **quick)
    results, real, fitted = tmp_path / "p" / "results", judge.evaluate, []

    def stop(*arguments: Any, name: str, **options: Any) -> Any:
        if name == "regret":
            raise KeyboardInterrupt
        return real(*arguments, name=name, **options)

    monkeypatch.setattr(judge, "evaluate", stop)
    invoke("compare", config, "--quiet", code=130)
    monkeypatch.undo()
    names = sorted(path.name for path in (results / "comparison.checkpoints").iterdir())
    assert names == ["mse-0.ckpt", "regret-0.ckpt", "two-stage-0.ckpt"]
    assert not (results / "comparison.json").exists()
    monkeypatch.setattr(phases.Run, "select", lambda *arguments: fitted.append(arguments))
    told = invoke("compare", config, "--json")  # all of them were trained
    assert told["resumed"] and not fitted and not (results / "comparison.checkpoints").exists()
    monkeypatch.undo()
    again = invoke("compare", config, "--json")
    assert not again["resumed"] and again["methods"] == told["methods"]
    (results / "comparison.checkpoints").mkdir()
    (results / "comparison.checkpoints" / "mse-0.ckpt").write_text("damaged")
    assert "not a checkpoint" in invoke("compare", config, code=2).stderr
    assert invoke("compare", config, "--restart", "--json")["methods"] == told["methods"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("epochs = 15", "epoch = 15"), "line 35: training.epoch is no key; did you mean 'epochs'?"),
        (("data.csv", "dat.csv"), "there is no table"),
        (('name = "model"', 'name = "modle"'), "model.py has no 'modle'; did you mean 'model'?"),
        (('"temperature", ', '"temprature", '), "no column 'temprature' (did you mean 'temperature'?)"),
        (('method = "regret"', 'method = "regert"'), "cannot be 'regert'; did you mean 'regret'?"),
        (('folder = "results"', 'folder = "model.py"'), "model.py is a file"),
        (('load = "load"', 'laod = "load"'), "no parameter 'laod'; did you mean 'load'?"),
        (
            ('"price_wind", ', ""),
            "parameter 'price' has shape (4,), so 4 entries, but its columns hold 3 numbers",
        ),
    ],
)
def test_mistakes_end_with_a_plain_message_and_code_2(edit, message, project, tmp_path):
    config = changed(project, tmp_path / "p")
    text = config.read_text()
    assert text.count(edit[0]) >= 1
    config.write_text(text.replace(*edit, 1))
    done = invoke("train", config, code=2)
    assert message in done.stderr and "Traceback" not in done.output


def test_folds_are_blocks_only_where_rows_are_in_the_order_of_time(project, tmp_path):
    header, *rows = (project / "data.csv").read_text().splitlines()
    for name, split, ordered in (("a", '"time"', True), ("b", '"random"', False)):
        config = changed(project, tmp_path / name, split=split)
        (tmp_path / name / "data.csv").write_text("\n".join([header, *rows[::-1]]))
        found = open_project(read_config(config), Output(quiet=True))
        assert found.options["selection"].ordered is ordered
        assert (np.diff(found.train.times) > np.timedelta64(0)).all() == ordered
    text = config.read_text()
    config.write_text(text.replace('split = "random"', 'group = "weekend"\nsplit = "group"'))
    found = open_project(read_config(config), Output(quiet=True))  # which the folds of `fit` keep together
    assert set(found.train.groups) != set(found.test.groups) and not found.options["selection"].ordered
    config.write_text(text.replace("test_fraction = 0.25", 'test_file = "data.csv"'))
    found = open_project(read_config(config), Output(quiet=True))
    assert found.options["selection"].ordered and (np.diff(found.train.times) > np.timedelta64(0)).all()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("model = 3", {}, "'model' is a int, not a Model"),
        ("def model(n):\n    return base(n)", {"arguments": {"n": 2}}, None),
        ("model = base(2)", {"arguments": {"n": 2}}, "'model' is no function, and takes none"),
        ("model = dg.DecisionLayer(base(2))", {}, None),
        ("model = dg.DecisionLayer(base(2))", {"solver": "daqp"}, "a DecisionLayer has a solver of its own"),
    ],
)
def test_models_come_as_objects_layers_and_functions(model, options, message, tmp_path):
    base = "import decigrad as dg\ndef base(n):\n    return dg.problems.newsvendor_model(n)\n"
    (tmp_path / "m.py").write_text(base + model)
    section = ModelSection(file="m.py", **options)
    if message is None:
        assert layer_of(section, tmp_path).parameters["demand"].shape == (2,)
        return
    with pytest.raises(dg.ModelError, match=message):
        layer_of(section, tmp_path)


def test_a_problem_of_the_package_by_name(tmp_path):
    section = ModelSection(problem="newsvendor_model", arguments={"products": 3})
    assert layer_of(section, tmp_path).parameters["demand"].shape == (3,)
    with pytest.raises(dg.ModelError, match="did you mean 'newsvendor_model'"):
        layer_of(ModelSection(problem="newsvender_model"), tmp_path)


def test_a_wrong_cell_and_a_broken_model_are_named(project, tmp_path, monkeypatch):
    config = changed(project, tmp_path / "p")
    table = tmp_path / "p" / "data.csv"
    lines = table.read_text().splitlines()
    lines[4] = lines[4].replace(lines[4].split(",")[2], "calm", 1)
    table.write_text("\n".join(lines))
    done = invoke("train", config, code=2)
    assert "column 'wind'" in done.stderr and "'calm'" in done.stderr
    (tmp_path / "p" / "model.py").write_text("import decigrad as dg\nmodel = = 1\n")
    assert "model.py, line 2: invalid syntax" in invoke("train", config, code=2).stderr
    (tmp_path / "p" / "model.py").write_text(
        "import decigrad as dg\nm = dg.Model()\nm.continuous('x', lb=2, ub=1)\n"
    )
    assert "model.py, line 3: " in invoke("train", config, code=2).stderr
    monkeypatch.chdir(config.parent)
    assert "decigrad: model.py, line 3: " in invoke("train", config.name, code=2).stderr


def test_what_is_logged_is_said_once(project, tmp_path):
    config = changed(project, tmp_path / "p")
    text = re.sub(r"price = \[.*\]", 'price = "price_*"', config.read_text())
    config.write_text(text.replace("# labels", "labels").replace('method = "regret"', 'method = "two-stage"'))
    (tmp_path / "p" / "labels").write_text("a file, where a folder is to be")
    told = invoke("train", config).stderr
    assert told.count("is 4 columns in this order") == told.count("labels are not stored") == 1


def test_report_without_results_and_of_another_file(project, tmp_path):
    config = changed(project, tmp_path / "p")
    assert "run `decigrad train`" in invoke("report", config, code=2).stderr
    (tmp_path / "x.json").write_text("[1, 2]")
    assert "holds no results" in invoke("report", tmp_path / "x.json", code=2).stderr
    (tmp_path / "x.json").write_text('{"format": 1, "title": "?"}')
    assert "x.json is damaged" in invoke("report", tmp_path / "x.json", code=2).stderr
    assert "none.json: No such file or directory" in invoke("report", tmp_path / "none.json", code=2).stderr


def test_quiet_is_silent_and_json_is_one_object(project, tmp_path):
    assert invoke("new", tmp_path / "a", "--quiet").output == ""
    told = invoke("new", tmp_path / "b", "--json")
    assert [Path(p).name for p in told["written"]] == ["config.toml", "model.py", "README.md", "data.csv"]


def test_methods_are_those_that_training_takes():
    names = [entry["name"] for entry in invoke("methods", "--json")["methods"]]
    assert names == [entry.name for entry in dg.methods()] and "spo+" in invoke("methods").stdout


def test_doctor_knows_healthy_from_broken(monkeypatch):
    told = invoke("doctor", "--json")
    names = {f["name"]: f for f in told["findings"]}
    assert told["healthy"] and names["jax"]["good"] and names["decigrad"]["detail"] == dg.__version__
    solvers = [f["name"] for f in told["findings"] if f["group"] == "solvers"]
    compiled = ["active-set"] if native.missing() else ["compiled core", "active-set"]
    always = ["daqp", "interior-point", "highs, linear", "highs, integer", "derivative"]
    assert solvers == compiled + always

    def broken(self: Any, program: Any) -> Any:
        raise ImportError("libhighs.so is missing")

    monkeypatch.setattr("decigrad.solvers.highs.HiGHS.__call__", broken)
    lines = invoke("doctor", code=1).stdout.splitlines()
    failed = [line for line in lines if "✗" in line]
    assert len(failed) == 2 and all("highs" in f and "failed: libhighs.so" in f for f in failed)


def test_the_table_is_csv_that_another_reader_takes():
    import polars as pl

    frame = pl.read_csv(io.StringIO(starter_table()), try_parse_dates=True)
    assert (
        frame.shape == (365, 10) and frame["day"].is_sorted() and frame.null_count().sum_horizontal()[0] == 0
    )
