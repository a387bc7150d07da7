"""What is written is what is read, to the structure and the bit; what was tampered with is refused."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import decigrad as dg
from decigrad import archive, oracles
from decigrad.compiled import float64
from decigrad.encoding import KNOWN, Reader, Writer, kinds
from decigrad.errors import ModelError
from decigrad.policy import Policy
from decigrad.predictors import LinearPredictor, outputs_of

RNG = np.random.default_rng(2)
EDGES = [[0, 1], [1, 3], [0, 2], [2, 3], [1, 2]]


def written(value: Any, mine: dict[str, Any] | None = None) -> tuple[Writer, Any]:
    writer = Writer(mine or {})
    return writer, json.loads(json.dumps([writer.nodes, writer.add(value)][1], allow_nan=False))


def again(value: Any) -> Any:
    """Through JSON and arrays, and back."""
    writer, root = written(value)
    return Reader(writer.arrays, {}).read(json.loads(json.dumps(writer.nodes, allow_nan=False)), root)


def linear_model(n: int, constrained: bool = True) -> dg.Model:
    m = dg.Model("linear")
    x, c = m.continuous("x", shape=n, lb=0.0, ub=1.0), m.parameter("cost", shape=n)
    m.minimize(dg.sum(c * x))
    if constrained:
        m.subject_to(dg.sum(x) <= 1.0)
    return m


def policy_of(layer: dg.DecisionLayer, p: int = 4) -> Policy:
    outputs = outputs_of(layer)
    size = sum(int(np.prod(shape)) for _, shape in outputs)
    weight = np.random.default_rng(0).normal(size=(size, p))
    return Policy(LinearPredictor(None, None, None, None, outputs, weight, np.ones(size)), layer)


POLICY = policy_of(dg.DecisionLayer(linear_model(3)))
X = RNG.normal(size=(9, 4))


# ------------------------------------------------------------------------------------------------ models


def random_model(draw: Any) -> dg.Model:
    """Expressions over two variables and three parameters, with shared parts, at random."""
    m = dg.Model(draw(st.text(min_size=1, max_size=5)))
    x = m.continuous("x", shape=(2, 2), lb=-1.0, ub=draw(st.sampled_from([1.0, np.inf])))
    p = m.parameter("p", value=draw(st.sampled_from([None, np.ones((2, 2))])), shape=(2, 2), nonneg=True)
    q = m.parameter("q", shape=2, known=True)
    y = (
        m.integer("y", shape=2, lb=dg.minimum(-q, -1.0), ub=3)
        if draw(st.booleans())
        else m.continuous("y", 2)
    )
    numbers = st.floats(-3, 3).map(lambda v: round(v, 3))

    def affine() -> Any:
        parts = [
            x[0],
            x[:, 1],
            x.T[1] * 2.0,
            y,
            q * x[0],
            p @ y,
            dg.concatenate([y[:1], x[1, 1:]]),
            x.sum(axis=0),
        ]
        a, b = draw(st.sampled_from(parts)), draw(st.sampled_from(parts))
        return a * draw(numbers) + b + draw(numbers)

    shared = affine()
    goal = dg.sum(p * dg.abs(x)) + dg.sum(dg.exp(q) * shared) + dg.max(shared)
    if draw(st.booleans()):
        goal = goal + dg.sum_squares(shared) + dg.norm(y)
    m.minimize(goal) if draw(st.booleans()) else m.maximize(-goal)
    for i in range(draw(st.integers(0, 3))):
        left = affine()
        m.subject_to([left <= dg.log1p(p[0] ** 2), left == draw(numbers), shared >= left][i], name=f"row {i}")
    return m


@settings(max_examples=40, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(st.data())
def test_models_come_back_with_the_same_structure(data: Any):
    m = random_model(data.draw)
    found = again(m)
    assert found.structure() == m.structure() and str(found) == str(m)
    for name, parameter in m.parameters.items():
        value = found.parameters[name].value
        assert parameter.value is None if value is None else (value == parameter.value).all()
        assert found.parameters[name].known == parameter.known


def test_shared_parts_stay_shared_and_depth_is_not_limited():
    m = dg.Model()
    x = m.continuous("x", lb=0.0, ub=1.0)
    e = x * 1.0
    for _ in range(5000):
        e = e + e  # 2^5000 terms if the graph were unfolded
    m.minimize(dg.sum([x] * 3000) + 0.0 * x)
    m.subject_to(e >= 0, name="deep")
    writer, _ = written(m)
    assert len(writer.nodes) < 5000 + 2 * 3000 + 100
    assert again(m).structure() == m.structure()


def test_numbers_keep_their_bits():
    special = np.array([0.1, -0.0, 5e-324, 1.7976931348623157e308, np.inf, -np.inf])
    values = {
        "a": special,
        "b": [float(v) for v in special],
        "c": (1, True, None, "ü"),
        "d": {"é": np.int8([1])},
    }
    found = again(values)
    assert found["a"].tobytes() == special.tobytes() and np.array(found["b"]).tobytes() == special.tobytes()
    assert found["c"] == (1, True, None, "ü") and found["d"]["é"].dtype == np.int8
    cube = np.asfortranarray(RNG.normal(size=(3, 4, 2)))
    assert (again(cube) == cube).all() and again(np.float32(0.5)) == 0.5 and again(np.array(2.0)).shape == ()


# ---------------------------------------------------------------------------------- solvers and predictors

PARTS = [
    dg.solvers.ActiveSet(max_iterations=9, threads=2),
    dg.solvers.DAQP(max_iterations=7),
    dg.solvers.HiGHS(time_limit=3.0, workers=2),
    dg.solvers.InteriorPoint(barrier=0.5),
    dg.KKT(),
    dg.Relaxed(),
    dg.Smoothed(0.3, "entropy", relative=True),
    dg.RelaxationGradient(0.2),
    dg.FrankWolfe(mu=0.7),
    dg.DavisYin(),
    dg.BlackBox(0.2),
    dg.Identity(),
    dg.Perturbed(samples=4, kind="multiplicative"),
    dg.IMLE(kappa=3),
    oracles.GridPath(3, 4),
    oracles.NodeGridPath(3, 3, cover=True),
    oracles.DagPath(4, EDGES, 0, 3),
    oracles.GraphPath(4, EDGES, 0, 3),
    oracles.Knapsack([2, 4, 6], 8),
    oracles.Knapsack([2, 4, 6]),
    oracles.MultiKnapsack([[1, 2, 3], [3, 2, 1]], [4, 4]),
    oracles.Enumeration([[0, 1], [1, 0.5]]),
    oracles.TopK(5, 2, exact=False),
    oracles.Simplex(3),
    oracles.Ranking(4),
    oracles.Assignment(2, 3),
    oracles.SpanningTree(4, EDGES),
    oracles.IntervalScheduling([0, 1, 2], [1.5, 3, 4]),
    oracles.TSP(5),
    oracles.CVRP(3, [1.0, 2.0, 1.0], 3.0, 2),
    oracles.Portfolio(np.eye(3) + 0.1, 0.2),
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_solvers_and_gradients_come_back_equal(part: Any):
    found = again(part)
    assert found == part and type(found) is type(part) and hash(found) == hash(part)


def test_every_known_class_is_tried():
    tried = {type(part).__name__ for part in PARTS}
    elsewhere = "Constant Variable Parameter Operated Gather Constraint Model DecisionLayer".split()
    elsewhere += "FixedArray Columns Policy LinearPredictor MLPPredictor CNNPredictor Linear Conv2d".split()
    external = {"Gurobi", "ORTools"}  # optional packages
    assert set(kinds()) == tried | set(elsewhere) | external
    assert len(kinds()) == sum(len(names.split()) for names in KNOWN.values())


DATA = dg.Dataset(RNG.normal(size=(12, 4)), {"cost": RNG.normal(size=(12, 3))})
IMAGES = dg.Dataset(RNG.normal(size=(12, 4, 4, 2)), {"cost": 2.0 + RNG.normal(size=(12, 4))})


@pytest.mark.parametrize(
    ("recipe", "data", "size"),
    [
        (dg.Linear(), DATA, 3),
        (dg.Linear(bias=False), DATA, 3),
        (dg.MLP((5,), "tanh"), DATA, 3),
        (dg.CNN(width=2, positive=True), IMAGES, 4),
    ],
    ids=["linear", "no-bias", "mlp", "cnn"],
)
def test_predictors_come_back_to_the_same_bits(recipe: Any, data: dg.Dataset, size: int, tmp_path: Path):
    layer = dg.DecisionLayer(linear_model(size))
    predictor = recipe.init(data, outputs_of(layer), seed=1)
    policy = Policy(predictor, layer)
    loaded = Policy.load(policy.save(tmp_path / "p.decigrad"))
    assert jax.tree_util.tree_structure(loaded.predictor) == jax.tree_util.tree_structure(predictor)
    found, other = policy.decide(data.features).table(), loaded.decide(data.features).table()
    assert all(value.tobytes() == other[name].tobytes() for name, value in found.items())


def test_layers_come_back_as_they_were_asked_for(tmp_path: Path):
    m = linear_model(12, constrained=False)
    for solver in (oracles.GridPath(3, 3), oracles.TopK(12, 4), "highs", dg.solvers.HiGHS(workers=2)):
        layer = dg.DecisionLayer(m, solver=solver, gradient=dg.BlackBox(0.5), throw=False)
        policy = policy_of(layer)
        loaded = Policy.load(policy.save(tmp_path / "p.decigrad"))
        assert loaded.layer == layer and loaded.layer.throw is False
    assert loaded.decide(X).x["x"].tobytes() == policy.decide(X).x["x"].tobytes()


def test_roles_and_settings_come_back(tmp_path: Path):
    roles = dg.Columns(["a", "b", "c", "d"], targets={"cost": ["u", "v", "w"]}, weight="n", time="t")
    settings = {"method": "spo+", "rates": [0.1, None, {"deep": (1, 2.5)}]}
    policy = Policy(POLICY.predictor, POLICY.layer, columns=roles, settings=settings)
    loaded = Policy.load(policy.save(tmp_path / "p.decigrad"))
    assert loaded.columns == roles and loaded.settings == settings and loaded.feature_names == tuple("abcd")


# --------------------------------------------------------------------------------------- parts of the user's


class Own(eqx.Module):
    inner: eqx.nn.Linear
    rate: float

    def __call__(self, features: Any) -> Any:
        return self.inner(features) * self.rate


def own(seed: int, size: int = 3) -> Own:
    with float64():
        return Own(eqx.nn.Linear(4, size, key=jax.random.key(seed)), 2.0)


def test_a_predictor_of_the_users_is_stored_by_its_arrays(tmp_path: Path):
    policy = Policy(own(1), POLICY.layer, feature_shape=(4,))
    path = tmp_path / "p.decigrad"
    with pytest.raises(ModelError, match=r"Own.*given=\('predictor',\)"):
        policy.save(path)
    assert not path.exists()
    policy.save(path, given=["predictor"])
    with pytest.raises(ModelError, match=r"saved without its predictor: pass load\(path, predictor=...\)"):
        Policy.load(path)
    loaded = Policy.load(path, predictor=own(2))
    assert loaded.decide(X).x["x"].tobytes() == policy.decide(X).x["x"].tobytes()
    with pytest.raises(ModelError, match=r"has arrays of shape .*\(2, 4\)"):
        Policy.load(path, predictor=own(2, size=2))
    with pytest.raises(ModelError, match="holds its own predictor"):
        Policy.load(POLICY.save(path), predictor=own(2))


def test_a_solver_of_the_users_is_given_again(tmp_path: Path):
    oracle = dg.Oracle(lambda costs: np.eye(3)[costs.argmin(1)])
    policy = policy_of(dg.DecisionLayer(linear_model(3), solver=oracle))
    path = tmp_path / "p.decigrad"
    with pytest.raises(ModelError, match="Oracle"):
        policy.save(path)
    policy.save(path, given=("solver",))
    with pytest.raises(ModelError, match="saved without its solver"):
        Policy.load(path)
    assert Policy.load(path, solver=oracle).layer == policy.layer
    with pytest.raises(ModelError, match="given= names parts among"):
        policy.save(path, given=("layer",))


def test_a_fitted_regressor_is_given_again(tmp_path: Path):
    from sklearn.linear_model import LinearRegression

    fitted = dg.Regressor(LinearRegression()).fitted(DATA, outputs_of(POLICY.layer))
    policy = Policy(fitted, POLICY.layer)
    assert policy.feature_shape == (4,)
    with pytest.raises(ModelError, match="FittedRegressor"):
        policy.save(tmp_path / "p.decigrad")
    loaded = Policy.load(policy.save(tmp_path / "p.decigrad", given=("predictor",)), predictor=fitted)
    assert loaded.decide(X).x["x"].tobytes() == policy.decide(X).x["x"].tobytes()


# ---------------------------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return POLICY.save(tmp_path_factory.mktemp("policy") / "p.decigrad").read_bytes()


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


def refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "bad.decigrad"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=message):
        Policy.load(path)


def sealed(members: dict[str, bytes], **changes: Any) -> bytes:
    """A file with valid checksums, as an attacker would write it."""
    manifest = json.loads(members["manifest.json"])
    others = {name: part for name, part in members.items() if name != "manifest.json"}
    manifest["members"] = {name: hashlib.sha256(part).hexdigest() for name, part in others.items()}
    return archive._packed({"manifest.json": archive._json({**manifest, **changes}), **others})


def test_every_flipped_byte_is_found(data: bytes, tmp_path: Path):
    path = tmp_path / "bad.decigrad"
    for position in range(0, len(data), 7):
        changed = bytearray(data)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(ModelError):
            Policy.load(path)
    for cut in (0, 10, len(data) // 2, len(data) - 1):
        refused(tmp_path, data[:cut], "not a policy|damaged")
    refused(tmp_path, data + b"\0", "damaged")


@pytest.mark.parametrize("member", ["structure.json", "arrays/float64.npy"])
def test_the_damaged_member_is_named(data: bytes, member: str, tmp_path: Path):
    content = members_of(data)[member]
    changed = data.replace(content, content[:-1] + bytes([content[-1] ^ 1]))
    refused(tmp_path, changed, f"damaged: {member} has changed")
    repacked = archive._packed({**members_of(data), member: content[:-1] + bytes([content[-1] ^ 1])})
    refused(tmp_path, repacked, f"damaged: {member} has changed")  # the zip's own checksum is right
    part = {name: part for name, part in members_of(data).items() if name != member}
    refused(tmp_path, archive._packed(part), f"damaged: {member} is missing")


def test_newer_formats_and_other_files_are_refused(data: bytes, tmp_path: Path):
    members = members_of(data)
    newer = r"version 2 of the format; this decigrad .* reads up to version 1: upgrade"
    refused(tmp_path, sealed(members, version=2), newer)
    refused(tmp_path, sealed(members, format="decigrad checkpoint"), "format is 'decigrad checkpoint'")
    refused(tmp_path, b"PK", "not a policy")
    refused(tmp_path, pickle.dumps({}), "not a policy")
    with pytest.raises(OSError):
        Policy.load(tmp_path / "none.decigrad")


def test_zips_that_decigrad_does_not_write_are_refused(data: bytes, tmp_path: Path):
    members = members_of(data)

    def packed(extra: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as file:
            for name, part in {**members, **extra}.items():
                file.writestr(name, part)
        return buffer.getvalue()

    refused(tmp_path, packed({"../evil.py": b"x"}), "has a member '../evil.py'")
    refused(tmp_path, packed({"structure.json": b" " * 10**7}, zipfile.ZIP_DEFLATED), "compressed")
    refused(tmp_path, packed({}), "bytes outside its members")


def test_the_size_of_a_file_is_limited(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "LARGEST", 100)
    refused(tmp_path, data, "more than the 100 that are read")


def changed(structure: Any, name: str, field: str, value: Any) -> None:
    node = next(node for node in structure["nodes"] if node[0] == name)
    node[1][field] = value


TAMPERED: dict[str, tuple[Any, str]] = {
    "class": (lambda s: s["nodes"].append(["Popen", {"args": "true"}]), "'Popen'"),
    "module": (lambda s: s["nodes"].append(["os.system", {}]), "'os.system'"),
    "oracle": (lambda s: s["nodes"].append(["Oracle", {"function": {"activation": "relu"}}]), "'Oracle'"),
    "forward": (lambda s: s.update(root={"node": 10**6}), "points to nothing"),
    "negative": (lambda s: s.update(root={"node": -1}), "points to nothing"),
    "activation": (lambda s: s.update(root={"activation": "__import__"}), "unknown value"),
    "tag": (lambda s: s.update(root={"call": 1}), "unknown value"),
    "root": (lambda s: s.update(root=3), "holds no policy"),
    "missing field": (lambda s: s["nodes"][0][1].popitem(), "its fields are"),
    "operation": (lambda s: changed(s, "Operated", "operation", "eval"), "Operated"),
    "shape": (lambda s: changed(s, "Operated", "shape", {"tuple": [7]}), "Operated"),
    "kind": (lambda s: changed(s, "Variable", "kind", "complex"), "unknown kind"),
    "name": (lambda s: changed(s, "Variable", "name", 3), "field 'name' is of a wrong type"),
    "sense": (lambda s: changed(s, "Constraint", "sense", "<"), "no sense"),
    "names": (lambda s: changed(s, "Policy", "feature_names", 3), "'feature_names' is of a wrong type"),
    "columns": (lambda s: changed(s, "Policy", "columns", [1]), "'columns' is of a wrong type"),
    "key": (lambda s: changed(s, "Policy", "settings", {"dict": [[1, 2]]}), "not text"),
    "array": (lambda s: s["arrays"].append(["object", [1]]), "no array of type 'object'"),
    "array size": (lambda s: s["arrays"].append(["float64", [10**9]]), "reshape"),
    "array shape": (lambda s: s["arrays"].append(["float64", [-1]]), "no array"),
    "solver": (lambda s: changed(s, "DecisionLayer", "solver", 5), "DecisionLayer"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_structures_that_make_no_sense_are_refused(case: str, data: bytes, tmp_path: Path):
    change, message = TAMPERED[case]
    members = members_of(data)
    structure = json.loads(members["structure.json"])
    change(structure)
    refused(tmp_path, sealed({**members, "structure.json": json.dumps(structure).encode()}), message)


def test_deep_json_and_pickled_arrays_are_refused(data: bytes, tmp_path: Path):
    members = members_of(data)
    refused(tmp_path, sealed({**members, "structure.json": b"[" * 10**5}), "cannot be read")
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    refused(tmp_path, sealed({**members, "arrays/float64.npy": buffer.getvalue()}), "cannot be read")


def test_a_failed_save_leaves_the_old_file(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "p.decigrad"
    path.write_bytes(data)

    def full(fd: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        POLICY.save(path)
    assert path.read_bytes() == data and list(tmp_path.iterdir()) == [path]
