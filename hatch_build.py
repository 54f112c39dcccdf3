"""The build of the compiled part, _anyfork_child/template/_fast.c, as a hook of hatchling.

It is optional: without a C compiler, without Python.h, on other systems and for free-threaded builds of Python, the
wheel has the Python twin alone and fits every Python. ANYFORK_COMPILED=0 forbids the compiled part, =1 demands it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOURCE = Path("src/_anyfork_child/template/_fast.c")
FLAGS = ("-O2", "-g0", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter")
VARIABLE = "ANYFORK_COMPILED"


class CompiledPart(BuildHookInterface):  # type: ignore[type-arg]  # generic in the stubs only
    """Compiles the extension module: into the sources for an editable wheel, into the wheel for any other."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the extension module, if that is possible here, and add it to the wheel."""
        wish = os.environ.get(VARIABLE)
        if wish == "0":
            return
        obstacle = _obstacle()
        if obstacle is None:
            obstacle = self._build(version == "editable", build_data)
        if obstacle is None:
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
        elif wish == "1":
            raise RuntimeError(f"cannot build the compiled part, which {VARIABLE}=1 demands: {obstacle}")
        else:
            self.app.display_warning(f"anyfork is built without its compiled part: {obstacle}")

    def _build(self, editable: bool, build_data: dict[str, Any]) -> str | None:
        """Compile; return why it has failed, or None."""
        source = Path(self.root) / SOURCE
        name = f"{source.stem}{sysconfig.get_config_var('EXT_SUFFIX')}"
        self._directory = tempfile.TemporaryDirectory()
        built = Path(self._directory.name) / name
        obstacle = compile_extension(source, built)
        if obstacle is None and editable:
            os.replace(_beside(built, source.parent), source.parent / name)
        elif obstacle is None:
            place = Path(*SOURCE.parent.parts[1:])  # without "src"
            build_data["force_include"][str(built)] = str(place / name)
        return obstacle

    def finalize(self, *_: object) -> None:
        """Remove what was built for the wheel."""
        if hasattr(self, "_directory"):
            self._directory.cleanup()


def _obstacle() -> str | None:
    """Return why this Python cannot use the compiled part, or None."""
    if sys.platform != "linux" or sys.implementation.name != "cpython":
        return "it is for CPython on Linux"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "free-threaded builds do not use it"
    return None


def compile_extension(source: Path, target: Path, *flags: str) -> str | None:
    """Compile a C source to an extension module of this Python; return why it has failed, or None."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    includes = [f"-I{sysconfig.get_path(name)}" for name in ("include", "platinclude")]
    command = [*compiler, *FLAGS, *flags, *includes, str(source), "-o", str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        return f"there is no C compiler ({error})"
    return None if done.returncode == 0 else f"{shlex.join(command)} failed:\n{done.stderr}"


def _beside(built: Path, directory: Path) -> Path:
    """Copy a file into a directory under another name, so that it can replace one there in one step."""
    copy = directory / f".{os.getpid()}-{built.name}"
    copy.write_bytes(built.read_bytes())
    copy.chmod(0o755)
    return copy
