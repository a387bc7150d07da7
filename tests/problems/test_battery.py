"""The battery model against CVXPY; the loader on a small file that the test writes, and on the real one."""

import datetime

import numpy as np
import pytest
from problems.real import DATA, needs

import decigrad as dg
from decigrad.problems import battery

REAL = DATA / "storage" / "storage_data.csv"
HEADER = "datetime,da_price,load_forecast,temp_dca"


def rows(first="2014-03-07", days=6, seed=0):
    rng = np.random.default_rng(seed)
    start = datetime.datetime.fromisoformat(first)
    out = []
    for hour in range(24 * days):
        price, load, temperature = rng.uniform(10, 90), rng.uniform(6e4, 1e5), rng.uniform(20, 90)
        out.append(
            [str(start + datetime.timedelta(hours=hour)), f"{price:.2f}", f"{load:.1f}", f"{temperature:.1f}"]
        )
    return out


def write(folder, table, header=HEADER):
    path = folder / "prices.csv"
    path.write_text("\n".join([header, *(",".join(row) for row in table)]) + "\n", encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------- loader


def test_days_pair_with_the_day_before(tmp_path):
    table = rows()
    days = battery.load_battery_days(write(tmp_path, table))
    assert len(days) == 5
    assert days.features.shape == (5, 173) and len(days.names) == 173
    prices = np.array([float(row[1]) for row in table]).reshape(6, 24)
    load = np.array([float(row[2]) for row in table]).reshape(6, 24)
    np.testing.assert_allclose(days.prices, prices[1:])
    np.testing.assert_allclose(days.features[:, :24], np.log(prices[:-1]))
    np.testing.assert_allclose(days.features[:, 24:48], load[1:])
    assert str(days.dates[0]) == "2014-03-08"


def test_calendar(tmp_path):
    days = battery.load_battery_days(write(tmp_path, rows()))
    columns = {name: days.features[:, i] for i, name in enumerate(days.names)}
    assert columns["weekend"].tolist() == [1, 1, 0, 0, 0]  # 8 March 2014 is a Saturday
    assert columns["daylight saving"].tolist() == [0, 0, 1, 1, 1]  # clocks change in the night to the 9th
    new_year = battery.load_battery_days(write(tmp_path, rows("2010-12-29")))
    holiday = new_year.features[:, new_year.names.index("holiday")]
    assert holiday.tolist() == [0, 1, 0, 0, 0]  # 1 January 2011 is a Saturday: observed the day before


def test_no_feature_sees_the_price_of_its_day(tmp_path):
    table = rows()
    before = battery.load_battery_days(write(tmp_path, table))
    for row in table[24 * 3 :]:
        row[1] = "77.00"
    after = battery.load_battery_days(write(tmp_path, table))
    np.testing.assert_array_equal(before.features[:3], after.features[:3])
    assert not np.allclose(before.log_prices[2], after.log_prices[2])
    assert not np.allclose(before.features[3], after.features[3])


def test_outliers_are_dropped_with_the_day_after_them(tmp_path):
    table = rows()
    table[24 * 2 + 5][1] = "900.00"
    path = write(tmp_path, table)
    assert battery.load_battery_days(path).dates.astype(str).tolist() == [
        "2014-03-08",
        "2014-03-11",
        "2014-03-12",
    ]
    assert len(battery.load_battery_days(path, price_cap=None)) == 5
    table[24 * 2 + 5][1] = "-3.00"
    assert len(battery.load_battery_days(write(tmp_path, table), price_cap=None)) == 3


def test_missing_temperatures_are_interpolated_within_the_day(tmp_path):
    table = rows()
    table[24][3] = ""
    table[24 + 5][3] = ""
    days = battery.load_battery_days(write(tmp_path, table))
    temperature = days.features[0, 24 * 4 : 24 * 5]
    known = [float(row[3] or "nan") for row in table[24:48]]
    assert temperature[0] == known[1]
    assert temperature[5] == pytest.approx((known[4] + known[6]) / 2)


def test_incomplete_days_are_dropped(tmp_path):
    table = rows()
    del table[24 * 3 + 7]
    assert len(battery.load_battery_days(write(tmp_path, table))) == 3


def test_errors_name_the_file_and_the_fault(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no battery data at .*nowhere.csv: expected a CSV file"):
        battery.load_battery_days(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match=r"column\(s\) temp_dca missing; found datetime, da_price"):
        battery.load_battery_days(write(tmp_path, rows(), "datetime,da_price,load_forecast,other"))
    with pytest.raises(ValueError, match="no rows below the header"):
        battery.load_battery_days(write(tmp_path, []))
    table = rows()
    table[10][1] = "cheap"
    with pytest.raises(ValueError, match="line 12: could not convert string to float: 'cheap'"):
        battery.load_battery_days(write(tmp_path, table))
    with pytest.raises(ValueError, match="no two consecutive complete days"):
        battery.load_battery_days(write(tmp_path, rows(days=1)))


# ------------------------------------------------------------------------------------------------- splits


def test_days_are_walked_in_time(tmp_path):
    days = battery.load_battery_days(write(tmp_path, rows(days=11)))
    ((train, test),) = dg.walk_forward(days, 1, test=2)
    assert (len(train), len(test)) == (8, 2)
    assert train.dates.max() < test.dates.min()


def test_standardization_is_fitted_on_the_training_days_alone(tmp_path):
    days = battery.load_battery_days(write(tmp_path, rows(days=11)))
    ((train, test),) = dg.walk_forward(days, 1, test=2)
    scaled, scaled_test = battery.standardized(train, test)
    varies = train.features.std(axis=0) > 0
    np.testing.assert_allclose(scaled.features.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(scaled.features.std(axis=0)[varies], 1)
    test.features[:] += 1000.0
    again, moved = battery.standardized(train, test)
    np.testing.assert_array_equal(scaled.features, again.features)
    assert not np.allclose(scaled_test.features, moved.features)


def test_a_constant_column_becomes_zero(tmp_path):
    days = battery.load_battery_days(write(tmp_path, rows(days=11)))
    ((train, test),) = dg.walk_forward(days, 1, test=2)
    train.features[:, 3] = 5.0
    scaled, scaled_test = battery.standardized(train, test)
    assert (scaled.features[:, 3] == 0).all() and (scaled_test.features[:, 3] == 0).all()


# -------------------------------------------------------------------------------------------------- model


def cvxpy_schedule(spec, price):
    import cvxpy as cp

    charge, discharge, state = cp.Variable(24), cp.Variable(24), cp.Variable(25)
    cost = (
        price @ (charge - discharge)
        + spec.flexibility * cp.sum_squares(state[1:] - spec.capacity / 2)
        + spec.health * (cp.sum_squares(charge) + cp.sum_squares(discharge))
    )
    constraints = [
        state[0] == spec.capacity / 2,
        state[1:] == state[:-1] - discharge + spec.efficiency * charge,
    ]
    for z, top in ((charge, spec.charge_limit), (discharge, spec.discharge_limit), (state, spec.capacity)):
        constraints += [z >= 0, z <= top]
    problem = cp.Problem(cp.Minimize(cost), constraints)
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return charge.value, discharge.value, state.value[1:], problem.value


@pytest.mark.parametrize("weights", battery.PAPER_WEIGHTS)
def test_model_agrees_with_cvxpy(weights):
    spec = battery.BatterySpec(flexibility=weights[0], health=weights[1])
    model = battery.battery_model(spec)
    rng = np.random.default_rng(4)
    for _ in range(3):
        price = rng.uniform(10, 120, size=24)
        solution = model.solve({"log_price": np.log(price)}, solver="daqp")
        charge, discharge, state, value = cvxpy_schedule(spec, price)
        assert float(solution.objective) == pytest.approx(value, abs=1e-6)
        np.testing.assert_allclose(solution.x["charge"], charge, atol=2e-5)
        np.testing.assert_allclose(solution.x["discharge"], discharge, atol=2e-5)
        np.testing.assert_allclose(solution.x["state"], state, atol=2e-5)


def test_the_battery_starts_half_full_and_loses_on_the_way():
    spec = battery.BatterySpec()
    x = battery.battery_model(spec).solve({"log_price": np.log(np.linspace(90, 20, 24))}, solver="daqp").x
    moves = spec.efficiency * x["charge"] - x["discharge"]
    np.testing.assert_allclose(x["state"], 0.5 + np.cumsum(moves), atol=1e-7)


def test_gradient_through_the_exponential_is_price_times_position():
    log_price = np.log(np.random.default_rng(0).uniform(20, 60, size=24))
    model = battery.battery_model(battery.BatterySpec(flexibility=10.0, health=5.0))
    solution = model.solve({"log_price": log_price}, solver="daqp")
    position = solution.x["charge"] - solution.x["discharge"]
    np.testing.assert_allclose(solution.gradient("log_price"), np.exp(log_price) * position, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": 0.0}, "capacity must be positive, got 0.0"),
        ({"efficiency": 1.2}, "efficiency must be in"),
        ({"health": -1.0}, "must not be negative"),
    ],
)
def test_impossible_batteries_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        battery.BatterySpec(**options)


# ---------------------------------------------------------------------------------------------- real data


@needs(REAL)
def test_real_days():
    days = battery.load_battery_days(REAL)
    assert len(days) == 2180 and days.features.shape == (2180, 173)
    assert np.isfinite(days.features).all()
    assert days.prices.max() <= 500
    assert len(battery.load_battery_days(REAL, price_cap=None)) == 2189
