"""The linear algebra of optimality: one symmetric system for derivatives, polishing and Newton steps.

Inequality rows and bounds enter by their *compliance*, kz [B, mi] and kw [B, n]: 0 holds the constraint
with equality, +inf lets it go, a positive number is the soft coupling of an interior point (s/z for a
row, 1/(zl/sl + zu/su) for a variable). With a = isfinite(kz), c = −kz where finite and 1 elsewhere, and
f, e likewise from kw, the system K v = rhs in v = (dx, dy, dz, dw) is

    row x   P dx + Aᵀ dy + Gᵀ(a·dz) + f·dw
    row y   A dx
    row z   a·(G dx) + c·dz
    row w   f·dx + e·dw

K is symmetric, of order N = 2n + me + mi. It is solved by elimination: soft bounds and (for a dense P) soft
rows go into the Hessian H, held variables are masked out of it, and the remaining rows C give the Schur
complement S = C H⁻¹ Cᵀ + diag(kz). H⁻¹ is elementwise for a diagonal P, Woodbury's formula for low rank
plus diagonal, Cholesky for a dense one. Directions without curvature get a small one in H, and S a small
compliance; iterative refinement against K takes both out again. Dependent rows then leave their multipliers
undetermined, and a projection makes these the least ones. What refinement cannot repair (a direction without
curvature, a contradiction) is solved by K⁺ explicitly.

Arrays are NumPy (computed at once, on the active rows only) or JAX (traceable, static shapes).
"""

from decigrad.kkt.cholesky import after as after
from decigrad.kkt.elimination import Factors as Factors
from decigrad.kkt.elimination import factorize as factorize
from decigrad.kkt.solution import solve as solve
from decigrad.kkt.system import assemble as assemble
from decigrad.kkt.system import matvec as matvec
from decigrad.kkt.system import pack as pack
from decigrad.kkt.system import unpack as unpack
