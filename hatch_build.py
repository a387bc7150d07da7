"""Builds the compiled core with the package where there is a C++ compiler, and installs without it elsewhere.

    python hatch_build.py [DIRECTORY]     builds it in place (src/decigrad), for development

The sources are in `native/`. On x86-64 the kernel is compiled twice, for any processor and for those with
AVX2, and the better one is chosen at run time. CXX and CXXFLAGS are obeyed as usual.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a program
    BuildHookInterface = object  # type: ignore[assignment,misc]

ROOT = Path(__file__).parent
NAME = "_active_set" + sysconfig.get_config_var("EXT_SUFFIX")


def build(target: Path, extra: list[str] = []) -> Path:  # noqa: B006
    """Compile the extension into a folder; raises OSError or CalledProcessError where that fails."""
    import jax
    import nanobind

    include = Path(nanobind.include_dir())
    folders = [include, include.parent / "ext/robin_map/include", sysconfig.get_path("include")]
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    if shutil.which(compiler[0]) is None:
        raise OSError(f"there is no C++ compiler {compiler[0]!r}")
    wide = platform.machine().lower() in ("x86_64", "amd64")
    common = [
        *compiler,
        "-std=c++17",
        "-fPIC",
        "-fvisibility=hidden",
        "-pthread",
        *(["-DDECIGRAD_X86"] if wide else []),
    ]
    flags = [*shlex.split(os.environ.get("CXXFLAGS", "")), *extra]
    kernel = ["-O3", "-ffp-contract=fast", str(ROOT / "native/kernel.cpp")]
    includes = [f"-I{folder}" for folder in folders] + ["-isystem", jax.ffi.include_dir()]
    # The baseline comes first: where both hold a function of the standard library, the linker takes its copy.
    parts = {"baseline": [*kernel, "-DDECIGRAD_ISA=baseline"]}
    if wide:
        parts["avx2"] = [*kernel, "-DDECIGRAD_ISA=avx2", "-mavx2", "-mfma"]
    parts["module"] = ["-O2", *includes, str(ROOT / "native/module.cpp")]
    parts["nanobind"] = [
        "-O2",
        "-fno-strict-aliasing",
        *includes,
        str(Path(nanobind.source_dir()) / "nb_combined.cpp"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        objects = [f"{folder}/{name}.o" for name in parts]

        def compile_one(item: tuple[str, list[str]]) -> None:
            command = [*common, *flags, *item[1], "-c", "-o", f"{folder}/{item[0]}.o"]
            subprocess.run(command, check=True, capture_output=True, text=True)

        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            list(pool.map(compile_one, parts.items()))
        made = Path(folder) / NAME
        undefined = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
        subprocess.run(
            [*common, *flags, "-shared", *undefined, *objects, "-o", str(made)],
            check=True,
            capture_output=True,
            text=True,
        )
        for old in target.glob("_active_set.*"):
            old.unlink()
        return Path(shutil.move(made, target / NAME))


class Hook(BuildHookInterface):  # type: ignore[misc,valid-type]
    """Adds the extension to a wheel or an editable installation."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, or say why not."""
        if self.target_name != "wheel":
            return
        try:
            made = build(ROOT / "src/decigrad")
        except (OSError, subprocess.CalledProcessError, ImportError) as error:
            detail = getattr(error, "stderr", None) or str(error)
            self.app.display_warning(
                f"decigrad: installed without its compiled solver: {detail.strip()[-2000:]}"
            )
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["artifacts"].append(f"src/decigrad/{made.name}")


if __name__ == "__main__":
    try:
        print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "src/decigrad"))
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr)
