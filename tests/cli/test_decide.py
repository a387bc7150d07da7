"""`decigrad decide`: the same bits as `Policy.decide`, in constant memory, with errors that name the row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from typer.testing import CliRunner

import decigrad as dg
from decigrad.cli import app
from decigrad.errors import ModelError, SolveError
from decigrad.policy import Policy
from decigrad.predictors import LinearPredictor

RNG = np.random.default_rng(8)
NAMES, CAPS = ["a", "b", "c"], ["k0", "k1"]
N = 100
X, CAP = RNG.normal(size=(N, 3)), RNG.uniform(0.55, 1.0, (N, 2))


def rule() -> Policy:
    m = dg.Model("split")
    x, c, cap = (
        m.continuous("x", shape=2, lb=0.0),
        m.parameter("cost", shape=2),
        m.parameter("cap", shape=2, known=True),
    )
    y = m.continuous("y")
    m.minimize(dg.sum(c * x) + dg.sum(x * x) + y * y)
    m.subject_to(dg.sum(x) == 1.0)
    m.subject_to(x <= cap)
    roles = dg.Columns(features=NAMES, known={"cap": CAPS})
    weight = np.random.default_rng(0).normal(size=(2, 3))
    predictor = LinearPredictor(None, None, None, None, (("cost", (2,)),), weight, None)
    return Policy(predictor, dg.DecisionLayer(m), columns=roles)


POLICY = rule()


def table(**changes: Any) -> pa.Table:
    columns: dict[str, Any] = {"id": [f"row {i}" for i in range(N)], **dict(zip(CAPS, CAP.T, strict=True))}
    columns |= dict(zip(NAMES, X.T, strict=True))
    return pa.table({**columns, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decide")
    POLICY.save(path / "rule.decigrad")
    parquet.write_table(table(), path / "x.parquet")
    csv.write_csv(table(), path / "x.csv")
    return path


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["decide", *map(str, arguments)])


@pytest.mark.parametrize("source", ["x.parquet", "x.csv"])
@pytest.mark.parametrize("target", ["out.parquet", "out.csv", "out.tsv"])
def test_a_table_is_decided_to_the_last_bit(folder: Path, source: str, target: str):
    out = folder / target
    done = run(
        folder / "rule.decigrad", folder / source, "--out", out, "--batch", 33, "--keep", "id", "--json"
    )
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["rows"] == N and said["failed"] == said["fallback"] == 0 and said["target"] == str(out)
    delimiter = csv.ParseOptions(delimiter="\t" if target.endswith("tsv") else ",")
    found = (
        parquet.read_table(out) if target.endswith("parquet") else csv.read_csv(out, parse_options=delimiter)
    )
    assert found.column_names == ["id", "x[0]", "x[1]", "y", "objective", "status", "fallback"]
    assert found["id"].to_pylist() == table()["id"].to_pylist()
    expected = POLICY.decide(X, {"cap": CAP}).table()
    for name in ("x[0]", "x[1]", "objective"):
        assert found[name].to_numpy().tobytes() == expected[name].tobytes()
    assert set(found["status"].to_pylist()) == {"OPTIMAL"} and not any(found["fallback"].to_pylist())


def test_the_decisions_are_right(folder: Path):
    POLICY.decide_file(folder / "x.parquet", folder / "right.parquet", batch=7)
    x = np.column_stack([parquet.read_table(folder / "right.parquet")[f"x[{i}]"].to_numpy() for i in (0, 1)])
    cost = POLICY.predict(X)["cost"]
    best = np.clip(
        0.5 - (cost[:, 0] - cost[:, 1]) / 4, np.maximum(0, 1 - CAP[:, 1]), np.minimum(1, CAP[:, 0])
    )
    np.testing.assert_allclose(x, np.column_stack([best, 1 - best]), atol=1e-8)


def test_it_reads_batch_by_batch(folder: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    decide = POLICY.decide
    monkeypatch.setattr(
        POLICY, "decide", lambda x, known, **how: seen.append(len(x)) or decide(x, known, **how)
    )
    progress: list[int] = []
    found = POLICY.decide_file(folder / "x.parquet", folder / "o.parquet", batch=40, progress=progress.append)
    assert seen == [40, 40, 20] and progress == [40, 80, 100] and found.rows == N
    with pytest.raises(ModelError, match="batch must be at least 1"):
        POLICY.decide_file(folder / "x.parquet", folder / "o.parquet", batch=0)


def holed(values: np.ndarray, row: int, value: Any) -> list[Any]:
    return [value if i == row else float(v) for i, v in enumerate(values)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b": holed(X[:, 1], 71, None)}, "row 71, column 'b': the value is missing"),
        ({"b": holed(X[:, 1], 71, float("inf"))}, "row 71, column 'b'"),
        ({"k1": holed(CAP[:, 1], 50, float("nan"))}, "row 50, column 'k1'"),
        ({"b": [str(v) if i != 71 else "many" for i, v in enumerate(X[:, 1])]}, "column 'b', row 71: 'many'"),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_bad_value_is_named_by_row_and_column(
    changes: Any, message: str, kind: str, tmp_path: Path, folder: Path
):
    source, out = tmp_path / f"bad.{kind}", tmp_path / "out.parquet"
    out.write_text("what was there before")
    (parquet.write_table if kind == "parquet" else csv.write_csv)(table(**changes), source)
    done = run(folder / "rule.decigrad", source, "--out", out, "--batch", 30)
    assert done.exit_code == 2 and message in done.stderr
    assert out.read_text() == "what was there before"
    assert sorted(p.name for p in tmp_path.iterdir()) == [source.name, "out.parquet"]


def test_columns_and_files_that_are_not_there(folder: Path, tmp_path: Path):
    rule, out = folder / "rule.decigrad", tmp_path / "out.csv"
    parquet.write_table(table().drop_columns(["b", "k1"]), tmp_path / "less.parquet")
    semicolons = tmp_path / "semicolons.csv"
    semicolons.write_text("a;b;c;k0;k1\n1,5;2;3;4;5\n")
    for source, message in [
        (tmp_path / "less.parquet", "lacks the columns 'b', 'k1'"),
        (tmp_path / "none.parquet", "there is no table"),
        (semicolons, "separated by semicolons"),
        (tmp_path / "table.xlsx", "a table is .parquet, .pq, .csv, .tsv, not .xlsx"),
    ]:
        done = run(rule, source, "--out", out)
        assert done.exit_code == 2 and message in done.stderr
    done = run(rule, folder / "x.csv", "--out", folder / "x.csv")
    assert done.exit_code == 2 and "is the table of features itself" in done.stderr
    done = run(folder / "x.csv", folder / "x.csv", "--out", out)
    assert done.exit_code == 2 and "not a policy" in done.stderr
    done = run(rule, folder / "x.csv", "--out", out, "--keep", "name")
    assert done.exit_code == 2 and "lacks the columns 'name'" in done.stderr
    (tmp_path / "empty.csv").write_text("a,b,c,k0,k1\n")
    assert "has no rows" in run(rule, tmp_path / "empty.csv", "--out", out).stderr
    assert not out.exists()


def test_rows_that_fail_are_named_or_get_the_fallback(folder: Path, tmp_path: Path):
    caps = {name: holed(CAP[:, i], 61, 0.1) for i, name in enumerate(CAPS)}
    source, out = tmp_path / "tight.csv", tmp_path / "out.parquet"
    csv.write_csv(table(**caps), source)
    with pytest.raises(SolveError, match=r"row 61: PRIMAL_INFEASIBLE: .*these constraints clash: "):
        POLICY.decide_file(source, out, batch=30)
    done = run(folder / "rule.decigrad", source, "--out", out, "--batch", 30)
    assert done.exit_code != 0 and "row 61: PRIMAL_INFEASIBLE" in done.stderr and not out.exists()
    assert run(folder / "rule.decigrad", source, "--out", out, "--allow-failures", "--quiet").output == ""
    found = parquet.read_table(out)
    assert np.flatnonzero(np.isnan(found["x[0]"].to_numpy())).tolist() == [61]
    (tmp_path / "fallback.json").write_text('{"x": [0.25, 0.75], "y": 0}')
    done = run(folder / "rule.decigrad", source, "--out", out, "--fallback", tmp_path / "fallback.json")
    assert done.exit_code == 0 and "1 failed, 1 of them have the fallback" in done.output
    found = parquet.read_table(out)
    assert np.flatnonzero(found["fallback"].to_numpy(zero_copy_only=False)).tolist() == [61]
    assert found["x[1]"][61].as_py() == 0.75 and found["status"][61].as_py() == "PRIMAL_INFEASIBLE"
    (tmp_path / "fallback.json").write_text('{"x": [0.25, 0.7], "y": 0}')
    done = run(folder / "rule.decigrad", source, "--out", out, "--fallback", tmp_path / "fallback.json")
    assert done.exit_code == 2 and "the fallback violates" in done.stderr
