"""Peers in PyTorch: qpth, cvxpylayers with diffcp, proxsuite's QPLayer."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.programs import Array, Program


def _torch() -> Any:
    import torch

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # proxsuite writes its gradients into the default type
    return torch


def _run(decide: Any) -> Any:
    torch = _torch()

    def run(cost: Array) -> tuple[Array, Array]:
        q = torch.tensor(cost, requires_grad=True)
        x = decide(q)
        (x**2).sum().backward()
        return x.detach().numpy(), q.grad.numpy()

    return run


def qpth(program: Program) -> Any:
    """Amos and Kolter (2017): a batched interior point. It stops at eps, or where it no longer improves."""
    from qpth.qp import QPFunction

    torch = _torch()
    P, G, h, A, b = (torch.tensor(a) for a in (program.P, *program.rows, program.A, program.b))
    function = QPFunction(verbose=-1, check_Q_spd=False, eps=1e-12, maxIter=50)
    return _run(lambda q: function(P, q, G, h, A, b))


def cvxpylayers(program: Program) -> Any:
    """Agrawal et al. (2019): CVXPY's cone program, solved by Clarabel at 1e-10, differentiated by diffcp."""
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer

    x, c = cp.Variable(program.n), cp.Parameter(program.n)
    constraints = [program.A @ x == program.b]
    if len(program.h):
        constraints.append(program.G @ x <= program.h)
    if np.isfinite(program.lb).all():
        constraints += [x >= program.lb, x <= program.ub]
    if program.factor is not None:
        roots = np.sqrt(program.diagonal)
        curved = 0.5 * (cp.sum_squares(cp.multiply(roots, x)) + cp.sum_squares(program.factor @ x))
    else:
        curved = 0.5 * cp.sum_squares(np.linalg.cholesky(program.P).T @ x)
    problem = cp.Problem(cp.Minimize(c @ x + curved), constraints)
    arguments = {
        "solve_method": "Clarabel",
        # LSQR, the default, leaves gradients of dense programs off by half; on the others it is the faster.
        "mode": "dense" if program.diagonal is None else "lsqr",
        "n_jobs_forward": 1,
        "n_jobs_backward": 1,
        **dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10),
    }
    layer = CvxpyLayer(problem, parameters=[c], variables=[x], solver_args=arguments)
    return _run(lambda q: layer(q)[0])


def proxsuite(program: Program) -> Any:
    """Bambade et al. (2024), QPLayer: proximal augmented Lagrangians, at 1e-10 forward and backward."""
    from proxsuite.torch.qplayer import QPFunction

    torch = _torch()
    G, h = program.rows if len(program.h) else (np.eye(program.n), program.ub)
    low = np.full(len(h), -1e20) if len(program.h) else program.lb
    P, A, b, C, l, u = (torch.tensor(a) for a in (program.P, program.A, program.b, G, low, h))
    function = QPFunction(eps=1e-10, eps_backward=1e-10, maxIter=1000)
    return _run(lambda q: function(P, q, A, b, C, l, u)[0])
