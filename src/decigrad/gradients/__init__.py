"""Derivatives of decisions: exact (KKT) and smoothed. See `implicit` for the rule."""

from decigrad.gradients.methods import KKT as KKT
from decigrad.gradients.methods import Smoothed as Smoothed
