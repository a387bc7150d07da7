"""Tables: one answer from every kind of source, and what is refused, in which words."""

import datetime
import logging

import numpy as np
import pandas as pd
import polars as pl
import pytest

import decigrad as dg
from decigrad.sources import Table

RNG = np.random.default_rng(0)
N = 12
NUMBERS = {
    "wind": RNG.normal(size=N),
    "hour": np.arange(N),
    "cost_10": RNG.normal(size=N),
    "cost_2": RNG.normal(size=N),
    "cost_1": RNG.normal(size=N),
    "limit": RNG.uniform(size=N),
    "mass": np.arange(1.0, N + 1),
}
DAYS = [datetime.date(2024, 1, 1) + datetime.timedelta(days=i) for i in range(N)]
PLANTS = list("aabbccddeeff")
ROLES = dg.Columns(
    ["wind", "hour"], {"cost": "cost_*"}, {"limit": "limit"}, weight="mass", time="day", group="plant"
)


def frame(**changes) -> pd.DataFrame:
    return pd.DataFrame({**NUMBERS, "day": DAYS, "plant": PLANTS, **changes})


def saved(kind: str, folder) -> object:
    """The same table in every form that can be read."""
    pandas = frame()
    path = folder / f"table.{kind}"
    if kind == "pandas":
        return pandas
    if kind == "polars":
        return pl.DataFrame({**NUMBERS, "day": DAYS, "plant": PLANTS})
    if kind == "dict":
        return {**NUMBERS, "day": np.array(DAYS, "M8[D]"), "plant": np.array(PLANTS)}
    if kind == "parquet":
        pl.DataFrame({**NUMBERS, "day": DAYS, "plant": PLANTS}).write_parquet(path)
    elif kind in ("csv", "tsv"):
        pandas.to_csv(path, index=False, sep="," if kind == "csv" else "\t")
    else:
        np.savez(path, **NUMBERS, day=np.array(DAYS, "M8[D]"), plant=np.array(PLANTS))
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "npz", "pandas", "polars", "dict"])
def test_every_source_gives_the_same_dataset(kind, tmp_path):
    data = dg.read_table(saved(kind, tmp_path), ROLES)
    np.testing.assert_array_equal(data.features, np.column_stack([NUMBERS["wind"], np.arange(N)]))
    costs = np.column_stack([NUMBERS[f"cost_{i}"] for i in (1, 2, 10)])  # natural order
    np.testing.assert_allclose(data.targets["cost"], costs, rtol=1e-15)
    np.testing.assert_allclose(data.known["limit"], NUMBERS["limit"], rtol=1e-15)
    assert data.known["limit"].shape == (N,) and data.feature_names == ["wind", "hour"]
    np.testing.assert_array_equal(data.weights, NUMBERS["mass"])
    np.testing.assert_array_equal(data.times.astype("M8[D]"), np.array(DAYS, "M8[D]"))
    assert data.groups.tolist() == PLANTS
    part = data.take([3, 1])
    assert part.groups.tolist() == ["b", "a"] and part.times[0] > part.times[1]


def test_patterns_are_literal_but_for_the_star_and_are_reported(caplog):
    table = {f"c[{i}]": np.full(3, float(i)) for i in (0, 10, 9)} | {"cx": np.zeros(3), "f": np.ones(3)}
    with caplog.at_level(logging.INFO, "decigrad"):
        data = dg.read_table(table, dg.Columns("f", {"c": "c[*]"}))
    np.testing.assert_array_equal(data.targets["c"][0], [0, 9, 10])
    assert "'c[*]' is 3 columns in this order: 'c[0]', 'c[9]', 'c[10]'" in caplog.text


def test_star_alone_is_every_column_without_a_role():
    data = dg.read_table(frame(), dg.Columns("*", {"cost": "cost_*"}, time="day", group="plant"))
    assert data.feature_names == ["wind", "hour", "limit", "mass"]


def test_shapes_come_from_the_layer():
    model = dg.Model("grid")
    x = model.continuous("x", shape=(2, 2), lb=0.0, ub=1.0)
    c, cap = model.parameter("cost", shape=(2, 2)), model.parameter("cap", shape=1, known=True)
    model.minimize(dg.sum(c * x) + dg.sum(x * x))
    model.subject_to(dg.sum(x) == cap)
    layer = dg.DecisionLayer(model)
    names = [f"c{i}{j}" for i in range(2) for j in range(2)]
    table = {name: np.arange(5.0) + 10 * k for k, name in enumerate(names)}
    table |= {"f": np.ones(5), "cap": np.ones(5)}
    data = dg.read_table(table, dg.Columns("f", {"cost": names}, {"cap": "cap"}), layer)
    np.testing.assert_array_equal(data.targets["cost"][1], [[1, 11], [21, 31]])
    assert data.known["cap"].shape == (5, 1)
    data.check(layer)
    with pytest.raises(dg.ModelError, match=r"'cost' has shape \(2, 2\), so 4 entries, but.*hold 3 numbers"):
        dg.read_table(table, dg.Columns("f", {"cost": names[:3]}, {"cap": "cap"}), layer)
    with pytest.raises(dg.ModelError, match=r"no parameter 'csot'.*'cost'"):
        dg.read_table(table, dg.Columns("f", {"csot": names}), layer)


def test_arrays_of_more_axes_keep_their_shape(tmp_path):
    images, costs = RNG.normal(size=(4, 6, 6, 3)), RNG.normal(size=(4, 9))
    np.savez(tmp_path / "maps.npz", images=images, costs=costs, day=np.arange(4))
    data = dg.read_table(tmp_path / "maps.npz", dg.Columns("images", {"cost": "costs"}, time="day"))
    np.testing.assert_array_equal(data.features, images)
    np.testing.assert_array_equal(data.targets["cost"], costs)
    assert data.feature_names is None


def test_rows_without_targets_are_dropped_on_request_alone(caplog):
    holes = NUMBERS["cost_2"].copy()
    holes[[4, 7]] = np.nan
    with pytest.raises(dg.ModelError, match=r"column 'cost_2'.* 2 missing values of 12 \(first rows: 4, 7\)"):
        dg.read_table(frame(cost_2=holes), ROLES)
    data = dg.read_table(frame(cost_2=holes), ROLES, missing="drop")
    assert len(data) == 10 and data.features[:, 1].tolist() == [0, 1, 2, 3, 5, 6, 8, 9, 10, 11]
    assert "2 of 12 rows are left out: a target is missing" in caplog.text
    features = frame(cost_2=holes, wind=holes)
    with pytest.raises(dg.ModelError, match="features: column 'wind'"):  # never dropped
        dg.read_table(features.assign(wind=np.where(np.arange(N) == 3, np.nan, 1.0)), ROLES, missing="drop")


def test_censored_targets_are_refused_or_left_out_with_a_warning(caplog):
    sold_out = np.arange(N) % 5 == 2
    roles = dg.Columns("wind", {"cost": "cost_1"}, censored="sold_out")
    with pytest.raises(dg.ModelError, match=r"'sold_out' marks 2 of 12 rows as censored \(first rows: 2, 7"):
        dg.read_table(frame(sold_out=sold_out), roles)
    data = dg.read_table(frame(sold_out=sold_out), roles, censored="drop")
    np.testing.assert_array_equal(data.targets["cost"], NUMBERS["cost_1"][~sold_out])
    assert "biases what is learned" in caplog.text
    with pytest.raises(dg.ModelError, match="must hold true and false"):
        dg.read_table(frame(sold_out=np.arange(N)), roles)


def test_positions_in_messages_are_those_of_the_source():
    target, feature = NUMBERS["cost_1"].copy(), NUMBERS["wind"].copy()
    target[0] = feature[5] = np.nan  # row 5 is the fifth of those that are left
    with pytest.raises(dg.ModelError, match=r"'wind'.*1 missing values of 11 \(first rows: 5\)"):
        dg.read_table(frame(cost_1=target, wind=feature), ROLES, missing="drop")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"wind": [*NUMBERS["wind"][:-1], np.nan]},
            "column 'wind'.*1 missing values of 12.*rows: 11.*drop these",
        ),
        ({"wind": ["calm"] * N}, "features: column 'wind'.*is not numeric: 12 of 12.*'calm'.*encode it"),
        ({"wind": [*map(str, range(N - 1)), "calm"]}, r"'wind'.*: 1 of 12.*first rows: 11; 'calm'"),
        ({"wind": [*map(str, range(N))]}, r"column 'wind'.*holds numbers as text .such as '0'.: convert it"),
        ({"wind": DAYS}, "features: column 'wind'.*holds dates; derive numbers"),
        ({"wind": [np.inf] + [0.0] * (N - 1)}, "column 'wind'.*1 infinite values.*rows: 0"),
        ({"limit": [None] * N}, "parameter 'limit': column 'limit'.*12 missing values of 12"),
        ({"mass": [-1.0] * N}, "weights must be"),
        ({"day": ["soon"] * N}, "time: column 'day'.*must hold ISO dates.*12 of 12.*'soon'"),
        ({"plant": [None, *PLANTS[1:]]}, "group: column 'plant'.*1 missing"),
    ],
)
def test_values_that_cannot_be_used_are_refused_by_column(changes, message):
    with pytest.raises(dg.ModelError, match=message):
        dg.read_table(frame(**changes), ROLES)


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"features": "windd"}, "features: the table has no column 'windd' .did you mean 'wind'"),
        ({"features": "rain*"}, r"features: no column matches 'rain\*'"),
        ({"features": ["wind", "w*"]}, "features names 'wind' more than once"),
        ({"features": []}, "features names no column"),
        (
            {"features": ["wind", "cost_1"]},
            "features hold 'cost_1'.*target 'cost'.*shown what it is to predict",
        ),
        ({"targets": {}}, "targets names no parameter"),
        ({"targets": ["cost_1"]}, "targets must be a dict"),
        ({"targets": {"a": "cost_1", "b": "cost_*"}}, "'cost_1' belongs to two targets, 'a' and 'b'"),
        ({"known": {"limit": "cost_1"}}, "'cost_1' is both known and part of target 'cost'"),
        ({"time": "d*"}, r"time is one column, 'd\*' is a pattern"),
        ({"group": "plnat"}, "group: the table has no column 'plnat' .did you mean 'plant'"),
    ],
)
def test_roles_that_do_not_fit_the_table_are_refused(roles, message):
    with pytest.raises(dg.ModelError, match=message):
        dg.read_table(frame(), dg.Columns(**{"features": "wind", "targets": {"cost": "cost_*"}, **roles}))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"a,b\n1,2\n3\n", "cannot be read as csv: .*Expected 2 columns, got 1"),
        ("t.csv", b"a,a\n1,2\n", "several columns named 'a'"),
        ("t.csv", b"a,b\n", "has no rows"),
        ("t.csv", b"", "cannot be read as csv"),
        ("t.csv", "wöchentlich,b\n1,2\n".encode("latin-1"), "not text in UTF-8"),
        ("t.csv", b"a;b\n1,5;2\n", "separated by semicolons: save it with commas"),
        ("t.tsv", b"a;b\n1,5;2\n", "separated by semicolons: save it with tabs"),
        ("t.parquet", b"nonsense", "cannot be read as parquet"),
        ("t.npz", b"nonsense", "cannot be read as npz"),
        ("t.xlsx", b"", "a table is .parquet, .pq, .csv, .tsv or .npz"),
    ],
)
def test_files_that_are_no_tables_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(dg.ModelError, match=message):
        Table.open(tmp_path / name)


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_a_damaged_file_is_named_or_read(kind, tmp_path):
    values = np.random.default_rng(0).normal(size=60).round(1)
    if kind == "npz":
        np.savez_compressed(tmp_path / "t.npz", a=values)
    else:
        pl.DataFrame({"a": values}).write_parquet(tmp_path / "t.parquet")
    path, whole, refused = tmp_path / f"t.{kind}", (tmp_path / f"t.{kind}").read_bytes(), 0
    for i in range(0, len(whole), 2):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 16]) + whole[i + 1 :])
        try:
            table = Table.open(path)
            table.column(table.names[0])
        except dg.ModelError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 20


def test_a_file_that_is_not_there_names_the_nearest(tmp_path):
    (tmp_path / "prices.csv").write_text("a\n1\n")
    with pytest.raises(dg.ModelError, match=r"there is no table .*price\.csv; did you mean 'prices\.csv'"):
        Table.open(tmp_path / "price.csv")


def test_a_file_as_windows_writes_it_is_the_same_table(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n3,4\r\n")
    table = Table.open(tmp_path / "t.csv")
    assert table.names == ["a", "b"] and table.array("features", ["a", "b"]).tolist() == [[1, 2], [3, 4]]


def test_the_time_that_is_none_is_named(tmp_path):
    (tmp_path / "t.csv").write_text("day\n2024-05-01\nyesterday\n2024-05-03\n")
    with pytest.raises(dg.ModelError, match=r"1 of 3 values are no dates \(first rows: 1; 'yesterday'\)"):
        Table.open(tmp_path / "t.csv").times("day")


def test_text_in_a_csv_that_means_no_value_is_missing(tmp_path):
    (tmp_path / "t.csv").write_text("f,c,g\n1,2,x\nNA,3,\n4,,y\n")
    table = Table.open(tmp_path / "t.csv")
    assert [table.absent(n).tolist() for n in "fcg"] == [
        [False, True, False],
        [False, False, True],
        [False, True, False],
    ]


def test_columns_of_other_types_become_numbers():
    import decimal

    table = Table.open(
        pl.DataFrame(
            {
                "money": [decimal.Decimal("1.25"), decimal.Decimal("2.50")],
                "flag": [True, False],
                "small": pl.Series([1, 2], dtype=pl.Int8),
                "single": pl.Series([0.5, 1.5], dtype=pl.Float32),
            }
        )
    )
    expected = [[1.25, 1, 1, 0.5], [2.5, 0, 2, 1.5]]
    np.testing.assert_array_equal(table.array("features", table.names), expected)
