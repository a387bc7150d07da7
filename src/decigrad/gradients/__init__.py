"""Derivatives of decisions: exact (KKT), relaxed, smoothed, estimated. Rules: `implicit`, `estimated`."""

from decigrad.gradients.davis_yin import DavisYin as DavisYin
from decigrad.gradients.estimators import IMLE as IMLE
from decigrad.gradients.estimators import BlackBox as BlackBox
from decigrad.gradients.estimators import Identity as Identity
from decigrad.gradients.estimators import Perturbed as Perturbed
from decigrad.gradients.frank_wolfe import FrankWolfe as FrankWolfe
from decigrad.gradients.methods import KKT as KKT
from decigrad.gradients.methods import RelaxationGradient as RelaxationGradient
from decigrad.gradients.methods import Relaxed as Relaxed
from decigrad.gradients.methods import Smoothed as Smoothed
