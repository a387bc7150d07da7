"""What holds for every test: two workers on two cores, one thread each, and reproducible draws."""

import os
from collections.abc import Iterator

# Before JAX, NumPy or a solver is imported: each of them reads these once. Two workers with a thread pool
# each would fight for the cores. XLA's own pool is left alone (a pool of one can deadlock with a host
# callback); only its multi-threaded kernels are switched off.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
# The tests compile thousands of programs and run each of them for milliseconds: without LLVM's expensive
# passes they take a third less. `make test-all` compiles as users do.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis  # noqa: E402 - after the environment
import jax  # noqa: E402
import pytest  # noqa: E402

# Compilation makes the first example of a property slow, so a deadline would measure XLA. The same examples
# are drawn on every run; a search for new ones is `pytest --hypothesis-profile=search`.
hypothesis.settings.register_profile("reproducible", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
hypothesis.settings.load_profile("reproducible")


@pytest.fixture(autouse=True)
def precision_is_left_alone() -> Iterator[None]:
    """A test that changes JAX's precision for good would change what the tests after it see."""
    before = jax.config.jax_enable_x64
    yield
    after = jax.config.jax_enable_x64
    if after != before:
        jax.config.update("jax_enable_x64", before)
    assert after == before, "the test has changed JAX's precision"
