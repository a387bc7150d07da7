"""No stall: two threads solve and train at the same time, XLA on two threads, in a process of their own.

`make test` runs a hundredth of the 10⁵ batches and 10⁴ steps of `make test-all` (a tenth would take it a
quarter of a minute), without what is slow to compile.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

QUICK = ["oracle in jit", "DAQP in jit", "HiGHS in jit", "DAQP outside"]


def run(solves: int, steps: int, kinds: list[str], limit: float) -> None:
    settings = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, str(Path(__file__).with_name("stress.py")), str(solves), str(steps), *kinds]
    done = subprocess.run(
        command, env={**settings, "NPROC": "2"}, capture_output=True, text=True, timeout=limit
    )  # a stall ends as TimeoutExpired
    assert done.returncode == 0, done.stderr
    solved, stepped = map(int, done.stdout.split())
    assert solved >= solves and stepped >= steps


@pytest.mark.timeout(120)
def test_two_threads_solve_and_train_without_a_stall():
    run(1_000, 100, QUICK, limit=110)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_a_hundred_thousand_batches_and_ten_thousand_steps():
    run(100_000, 10_000, [], limit=3_500)
