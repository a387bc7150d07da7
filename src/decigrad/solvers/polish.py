"""From an almost optimal point to the exact solution of its active set.

Given which constraints hold with equality, the solution is one linear system away (`kkt.solve`). The signs of
the multipliers and the slacks then say whether the set was right. If not, it is corrected by block principal
pivoting: everything infeasible changes sides at once while that reduces the number of infeasibilities (with
a little patience), else only the infeasible constraint of largest index does. With bounds alone and P
positive definite that cannot cycle. With equalities it can: holding the last free variable of a row
contradicts the row, and two sets may alternate. Such a sample stays unverified and comes back as given.

Source: J. J. Júdice and F. M. Pires, "A block principal pivoting algorithm for large-scale strictly monotone
linear complementarity problems", Computers & Operations Research 21 (1994), doi:10.1016/0305-0548(94)90106-6;
K. G. Murty, "Note on a Bard-type scheme for solving the complementarity problem", Opsearch 11 (1974).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from decigrad import kkt
from decigrad.program import Array, QuadraticProgram, RawResult, namespace

PATIENCE = 3
ROUNDS = 60


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _State:
    """By sample: the active set to try next, the best point so far, and how the pivoting is doing."""

    active: Array
    fixed: Array
    best: tuple[Array, Array, Array, Array, Array, Array]
    """x, y, z, w, active, fixed of the point with the least violation."""
    violation: Array
    fewest: Array
    patience: Array
    rounds: Array
    done: Array


def polish(program: QuadraticProgram, guess: RawResult) -> tuple[RawResult, Array]:
    """Solve the KKT system of the guessed active set exactly, correcting the set until its signs are right.

    Arguments:
        program: batched; NumPy or JAX (then traceable).
        guess: `active` [B, mi] and `fixed` [B, n] are the first active set. Where the solution or its
            multipliers are not unique, the nearest ones to those of the guess are taken.

    Returns:
        The polished result, and verified [B]: stationarity, feasibility and signs hold to about 1e-11
        relative to the data (1e-12 is aimed at). A sample that could not be verified comes back as given.
        In verified samples a constraint whose multiplier is below 1e-10 of the objective's gradient counts as
        inactive; a variable with lb = ub always counts as fixed.
    """
    if namespace(guess.x, *jax.tree_util.tree_leaves(program)) is np:
        with np.errstate(all="ignore"):
            state = _loop_numpy(program, guess)
            return _finish(program, guess, state)
    return _finish(program, guess, _loop_jax(program, guess))


def _loop_numpy(program: QuadraticProgram, guess: RawResult) -> _State:
    state = _start(program, guess)
    open_ = np.flatnonzero(~state.done)
    while open_.size:
        everything = open_.size == len(state.done)
        part, near = jax.tree_util.tree_map(lambda a, i=open_: a[i], (state, guess))
        part = _round(program if everything else program.take(open_), near, part)
        if everything:
            state = part
        else:
            jax.tree_util.tree_map(lambda a, b, i=open_: a.__setitem__(i, b), state, part)
        open_ = open_[~part.done]
    return state


def _loop_jax(program: QuadraticProgram, guess: RawResult) -> _State:
    def body(state: _State) -> _State:
        new = _round(program, guess, state)
        keep = state.done

        def choose(old: Array, changed: Array) -> Array:
            return jnp.where(keep.reshape((-1,) + (1,) * (old.ndim - 1)), old, changed)

        return jax.tree_util.tree_map(choose, state, new)

    return jax.lax.while_loop(lambda state: ~state.done.all(), body, _start(program, guess))


def _start(program: QuadraticProgram, guess: RawResult) -> _State:
    xp = namespace(guess.x, program.q)
    batch = len(guess.x)
    fixed = xp.where((guess.fixed < 0) & ~xp.isfinite(program.lb), 0, guess.fixed)
    fixed = xp.where((fixed > 0) & ~xp.isfinite(program.ub), 0, fixed)
    fixed = xp.where((program.lb == program.ub) & (fixed == 0), 1, fixed)
    integer = guess.fixed.dtype
    active = xp.broadcast_to(xp.isfinite(program.h) & guess.active.astype(bool), guess.z.shape)
    best = (guess.x, guess.y, guess.z, guess.w, active, fixed.astype(integer))
    count = xp.full(batch, active.shape[1] + fixed.shape[1] + 1, xp.int32)
    failed = ~xp.isfinite(guess.x).all(-1)
    return _State(
        active=active,
        fixed=fixed.astype(integer),
        best=jax.tree_util.tree_map(lambda a: xp.array(a), best),
        violation=xp.full(batch, xp.inf, guess.x.dtype),
        fewest=count,
        patience=xp.full(batch, PATIENCE, xp.int32),
        rounds=xp.zeros(batch, xp.int32),
        done=failed,
    )


def _solve(program: QuadraticProgram, guess: RawResult, active: Array, fixed: Array) -> tuple[Array, ...]:
    """The KKT point of an active set that is nearest to the guess.

    Where active constraints are dependent their multipliers are not unique; the guess's, if it has
    any, have the right signs, and the least ones need not.
    """
    xp = namespace(guess.x, program.q)
    bound = xp.where(fixed < 0, program.lb, xp.where(fixed > 0, program.ub, 0.0))
    kz, kw = xp.where(active, 0.0, xp.inf), xp.where(fixed != 0, 0.0, xp.inf)
    kz, kw = kz.astype(guess.x.dtype), kw.astype(guess.x.dtype)
    x, y = guess.x, xp.where(xp.isfinite(guess.y), guess.y, 0.0)
    z = xp.where(active & (guess.z > 0), guess.z, 0.0)
    w = xp.where(guess.w * fixed > 0, guess.w, 0.0)
    rhs = kkt.pack(
        -program.stationarity(x, y, z, w),
        program.b - program.A.matvec(x),
        xp.where(active, program.h - program.G.matvec(x), 0.0),
        xp.where(fixed != 0, bound - x, 0.0),
    )
    # The right-hand side is a residual: what rounding left in it is no contradiction.
    size = abs(program.q).max(-1) + abs(_finite(xp.where(fixed != 0, bound, x))).max(-1)
    size = size + _most(xp, abs(program.b)) + _most(xp, xp.where(active, abs(_finite(program.h)), 0.0))
    size = size + _most(xp, abs(y)) + _most(xp, z) + _most(xp, abs(w))
    noise = 30 * float(np.finfo(x.dtype).eps) * size
    dx, dy, dz, dw = kkt.unpack(program, kkt.solve(program, kz, kw, rhs, hard=True, noise=noise)[0])
    # A held variable is at its bound to the last bit, not to rounding.
    return xp.where(fixed != 0, bound, x + dx), y + dy, z + dz, w + dw


def _round(program: QuadraticProgram, guess: RawResult, state: _State) -> _State:
    xp = namespace(guess.x, program.q)
    active, fixed = state.active, state.fixed
    tight, _ = _tolerances(guess.x.dtype)
    x, y, z, w = _solve(program, guess, active, fixed)
    scale_x, scale_d, row_norm = _scales(program, x, y)
    free_sign = program.lb == program.ub

    # Infeasibilities, relative: above zero on the wrong side of a bound or with a wrong sign.
    room = scale_x[:, None]
    row = (program.G.matvec(x) - program.h) / (abs(_finite(program.h)) + row_norm * room)
    row = xp.where(xp.isfinite(program.h), row, -xp.inf)
    low = xp.where(xp.isfinite(program.lb), (program.lb - x) / (abs(_finite(program.lb)) + room), -xp.inf)
    high = xp.where(xp.isfinite(program.ub), (x - program.ub) / (abs(_finite(program.ub)) + room), -xp.inf)
    sign_z = -z * row_norm / scale_d[:, None]
    sign_w = xp.where(free_sign, 0.0, -w * fixed / scale_d[:, None])

    # An active row that is slack belongs to a set that contradicts itself: it leaves too.
    leave = xp.where(active, xp.maximum(sign_z, -row), row)
    free = xp.where(fixed != 0, sign_w, xp.maximum(low, high))
    residual_x = abs(program.stationarity(x, y, z, w)).max(-1) / scale_d
    worst = xp.maximum(residual_x, xp.maximum(_most(xp, leave), _most(xp, free)))
    worst = xp.maximum(worst, _most(xp, xp.where(active, abs(row), 0.0)))
    if program.num_equalities:
        off = abs(program.A.matvec(x) - program.b)
        off = off / (abs(program.b) + abs(program.A.matrix).max(-1) * room + 1e-300)
        worst = xp.maximum(worst, off.max(-1))
    crossed = (program.lb > program.ub).any(-1)
    worst = xp.where(xp.isnan(worst) | crossed, xp.inf, worst)

    better = worst < state.violation
    candidate = (x, y, z, w, active, fixed)
    best = tuple(xp.where(better[:, None], new, old) for new, old in zip(candidate, state.best, strict=True))
    violation = xp.where(better, worst, state.violation)

    wrong_row, wrong_var = leave > tight, free > tight
    count = (wrong_row.sum(-1) + wrong_var.sum(-1)).astype(state.fewest.dtype)
    fewer = count < state.fewest
    patience = xp.where(fewer, PATIENCE, state.patience - 1)
    single = patience < 0
    # The last wrong one alone: variables count after rows.
    wrong = xp.concatenate([wrong_row, wrong_var], axis=-1)
    position = xp.arange(wrong.shape[-1])
    last = xp.where(wrong, position, -1).max(-1)
    wrong = xp.where(single[:, None], wrong & (position == last[:, None]), wrong)
    m = active.shape[1]
    side = xp.where(high > low, 1, -1).astype(fixed.dtype)
    rounds = state.rounds + 1
    return _State(
        active=active ^ wrong[:, :m],
        fixed=xp.where(wrong[:, m:], xp.where(fixed != 0, 0, side), fixed).astype(fixed.dtype),
        best=best,
        violation=violation,
        fewest=xp.minimum(count, state.fewest),
        patience=patience,
        rounds=rounds,
        done=state.done | (worst <= tight) | (count == 0) | (rounds >= ROUNDS),
    )


def _tolerances(dtype: Any) -> tuple[float, float]:
    """What a violation is corrected from (about 1e-12 in float64), and what is accepted (about 1e-11).

    A constraint that is violated by 1e-9 belongs to another active set, with another derivative.
    """
    eps = float(np.finfo(dtype).eps)
    return eps**0.77, eps**0.7


def _finite(a: Array) -> Array:
    xp = namespace(a)
    return xp.where(xp.isfinite(a), a, 0.0)


def _most(xp: Any, a: Array) -> Array:
    return a.max(-1) if a.shape[-1] else xp.zeros(a.shape[0], a.dtype)


def _scales(program: QuadraticProgram, x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Size of x [B], of the objective's gradient [B], of each row of G [B or 1, mi]."""
    xp = namespace(x, program.q)
    gradient = xp.maximum(abs(program.q).max(-1), abs(program.P.matvec(x)).max(-1)) + 1e-6
    if program.num_equalities:
        gradient = xp.maximum(gradient, abs(program.A.rmatvec(y)).max(-1))
    norm = abs(program.G.matrix).max(-1) if program.num_inequalities else program.h
    return abs(x).max(-1) + 1e-3, gradient, xp.where(norm > 0, norm, 1.0)


def _finish(program: QuadraticProgram, guess: RawResult, state: _State) -> tuple[RawResult, Array]:
    xp = namespace(guess.x, program.q)
    x, y, z, w, active, fixed = state.best
    verified = state.violation <= _tolerances(x.dtype)[1]
    _, scale_d, row_norm = _scales(program, x, y)
    weak = float(np.finfo(x.dtype).eps) ** 0.64 * scale_d[:, None]
    always = program.lb == program.ub
    z = xp.maximum(xp.where(active, z, 0.0), 0.0)
    w = xp.where(always | (w * fixed > 0), w, 0.0)
    active = active & (z * row_norm > weak)
    strong = abs(w) > weak
    side = xp.where(w < 0, -1, 1)
    fixed = xp.where(always, side, xp.where(strong, fixed, 0)).astype(guess.fixed.dtype)

    def choose(new: Array, old: Array) -> Array:
        return xp.where(verified[:, None], new, old)

    polished = guess.replace(
        x=choose(x, guess.x),
        y=choose(y, guess.y),
        z=choose(z, guess.z),
        w=choose(w, guess.w),
        active=choose(active, guess.active.astype(bool)),
        fixed=choose(fixed, guess.fixed),
    )
    return polished, verified
