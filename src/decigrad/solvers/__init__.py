"""Solvers: each takes a batch of programs and returns one raw result.

Importing this package imports no solver library; each is loaded where it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from decigrad.solvers.automatic import NAMES, by_name, choose

if TYPE_CHECKING:
    from decigrad.solvers.active_set import ActiveSet
    from decigrad.solvers.daqp import DAQP
    from decigrad.solvers.diagnosis import Diagnosis, diagnose
    from decigrad.solvers.highs import HiGHS
    from decigrad.solvers.interior_point import InteriorPoint
    from decigrad.solvers.scip import SCIP

_LAZY = {
    "ActiveSet": "active_set",
    "DAQP": "daqp",
    "HiGHS": "highs",
    "InteriorPoint": "interior_point",
    "SCIP": "scip",
    "Diagnosis": "diagnosis",
    "diagnose": "diagnosis",
}

__all__ = [
    "ActiveSet",
    "DAQP",
    "SCIP",
    "HiGHS",
    "InteriorPoint",
    "Diagnosis",
    "NAMES",
    "by_name",
    "choose",
    "diagnose",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"decigrad.solvers.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'decigrad.solvers' has no attribute {name!r}")
