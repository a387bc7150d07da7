"""decigrad: train predictive models by the quality of the decisions they lead to."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from decigrad.modeling import *  # noqa: F403

if TYPE_CHECKING:
    from decigrad import callbacks as callbacks
    from decigrad import execution as execution
    from decigrad import losses as losses
    from decigrad import oracles as oracles
    from decigrad import problems as problems
    from decigrad import solvers as solvers
    from decigrad.data import Dataset as Dataset
    from decigrad.differentiable import differentiable_solve as differentiable_solve
    from decigrad.differentiable import differentiable_solve_l3 as differentiable_solve_l3
    from decigrad.errors import InfeasibleError as InfeasibleError
    from decigrad.errors import ModelError as ModelError
    from decigrad.errors import NonConvexError as NonConvexError
    from decigrad.errors import SolveError as SolveError
    from decigrad.errors import UnboundedError as UnboundedError
    from decigrad.errors import UnsupportedModelError as UnsupportedModelError
    from decigrad.evaluation import compare as compare
    from decigrad.evaluation import diagnose as diagnose
    from decigrad.evaluation import evaluate as evaluate
    from decigrad.gradients import IMLE as IMLE
    from decigrad.gradients import KKT as KKT
    from decigrad.gradients import BlackBox as BlackBox
    from decigrad.gradients import DavisYin as DavisYin
    from decigrad.gradients import FrankWolfe as FrankWolfe
    from decigrad.gradients import Identity as Identity
    from decigrad.gradients import Perturbed as Perturbed
    from decigrad.gradients import RelaxationGradient as RelaxationGradient
    from decigrad.gradients import Relaxed as Relaxed
    from decigrad.gradients import Smoothed as Smoothed
    from decigrad.interop.cvx import from_cvxpy as from_cvxpy
    from decigrad.interop.estimator import DecisionFocusedRegressor as DecisionFocusedRegressor
    from decigrad.interop.exchange import from_gurobi as from_gurobi
    from decigrad.interop.exchange import from_linopy as from_linopy
    from decigrad.interop.exchange import from_lp as from_lp
    from decigrad.interop.exchange import from_mps as from_mps
    from decigrad.interop.exchange import from_pyomo as from_pyomo
    from decigrad.interop.exchange import to_lp as to_lp
    from decigrad.interop.exchange import to_mps as to_mps
    from decigrad.interop.files import Imported as Imported
    from decigrad.labels import label as label
    from decigrad.layer import DecisionLayer as DecisionLayer
    from decigrad.oracles import Oracle as Oracle
    from decigrad.policy import Decisions as Decisions
    from decigrad.policy import Policy as Policy
    from decigrad.predictors import CNN as CNN
    from decigrad.predictors import MLP as MLP
    from decigrad.predictors import FlaxPredictor as FlaxPredictor
    from decigrad.predictors import JAXPredictor as JAXPredictor
    from decigrad.predictors import Linear as Linear
    from decigrad.program import Status as Status
    from decigrad.registry import Auto as Auto
    from decigrad.registry import Method as Method
    from decigrad.registry import methods as methods
    from decigrad.regressors import Regressor as Regressor
    from decigrad.regressors import Residual as Residual
    from decigrad.selection import CrossValidation as CrossValidation
    from decigrad.selection import HoldOut as HoldOut
    from decigrad.splits import group_folds as group_folds
    from decigrad.splits import group_split as group_split
    from decigrad.splits import time_split as time_split
    from decigrad.splits import walk_forward as walk_forward
    from decigrad.tables import Columns as Columns
    from decigrad.tables import read_table as read_table
    from decigrad.training import fit as fit

__version__ = "0.1.0"

_HOMES = {
    "callbacks": "decigrad.callbacks",
    "execution": "decigrad.execution",
    "losses": "decigrad.losses",
    "oracles": "decigrad.oracles",
    "Oracle": "decigrad.oracles",
    "problems": "decigrad.problems",
    "solvers": "decigrad.solvers",
    "Dataset": "decigrad.data",
    "differentiable_solve": "decigrad.differentiable",
    "differentiable_solve_l3": "decigrad.differentiable",
    "InfeasibleError": "decigrad.errors",
    "ModelError": "decigrad.errors",
    "NonConvexError": "decigrad.errors",
    "SolveError": "decigrad.errors",
    "UnboundedError": "decigrad.errors",
    "UnsupportedModelError": "decigrad.errors",
    "compare": "decigrad.evaluation",
    "diagnose": "decigrad.evaluation",
    "evaluate": "decigrad.evaluation",
    "KKT": "decigrad.gradients",
    "BlackBox": "decigrad.gradients",
    "Identity": "decigrad.gradients",
    "IMLE": "decigrad.gradients",
    "Perturbed": "decigrad.gradients",
    "DavisYin": "decigrad.gradients",
    "FrankWolfe": "decigrad.gradients",
    "RelaxationGradient": "decigrad.gradients",
    "Relaxed": "decigrad.gradients",
    "Auto": "decigrad.registry",
    "Method": "decigrad.registry",
    "methods": "decigrad.registry",
    "Smoothed": "decigrad.gradients",
    "label": "decigrad.labels",
    "DecisionFocusedRegressor": "decigrad.interop.estimator",
    "Imported": "decigrad.interop.files",
    "from_cvxpy": "decigrad.interop.cvx",
    "from_gurobi": "decigrad.interop.exchange",
    "from_linopy": "decigrad.interop.exchange",
    "from_lp": "decigrad.interop.exchange",
    "from_mps": "decigrad.interop.exchange",
    "from_pyomo": "decigrad.interop.exchange",
    "to_lp": "decigrad.interop.exchange",
    "to_mps": "decigrad.interop.exchange",
    "DecisionLayer": "decigrad.layer",
    "Decisions": "decigrad.policy",
    "Policy": "decigrad.policy",
    "Linear": "decigrad.predictors",
    "CNN": "decigrad.predictors",
    "MLP": "decigrad.predictors",
    "FlaxPredictor": "decigrad.predictors",
    "JAXPredictor": "decigrad.predictors",
    "Regressor": "decigrad.regressors",
    "Residual": "decigrad.regressors",
    "Status": "decigrad.program",
    "CrossValidation": "decigrad.selection",
    "HoldOut": "decigrad.selection",
    "group_folds": "decigrad.splits",
    "group_split": "decigrad.splits",
    "time_split": "decigrad.splits",
    "walk_forward": "decigrad.splits",
    "Columns": "decigrad.tables",
    "read_table": "decigrad.tables",
    "fit": "decigrad.training",
}
"""Public names that are imported at first use, so that `import decigrad` costs little beside JAX."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'decigrad' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    return home if _HOMES[name] == f"decigrad.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
