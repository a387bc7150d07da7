"""Tests in float64, which JAX does not compute in by itself."""

from __future__ import annotations

import functools

import jax


def in_float64(test):
    """The test in float64; a decorator, since a fixture would not wrap Hypothesis' examples."""

    @functools.wraps(test)
    def wrapped(*arguments, **named):
        with jax.enable_x64(True):
            return test(*arguments, **named)

    return wrapped
