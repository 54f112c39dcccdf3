"""The GPU devices that this process has open. What it has set up there does not work in a fork.

Runs in templates, and in a program of which a copy is made.
"""

from __future__ import annotations

import os

from .failure import Failure

# A machine with GPUs of NVIDIA, of AMD, of any maker, or of the host of WSL has one of these.
PRESENT = ("/dev/nvidiactl", "/dev/kfd", "/dev/dri", "/dev/dxg")
NODES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/renderD", "/dev/dxg")


class GpuDevices:
    """The GPU devices that are open when the object is made. Looking costs nearly nothing where there are no GPUs."""

    def __init__(self) -> None:
        self._present = any(map(_exists, PRESENT))
        self.paths: set[str] = _open_devices() if self._present else set()

    def check(self, what: str) -> None:
        """Raise Failure if further ones are open now. ``what`` has run meanwhile."""
        if not self._present:
            return
        opened = _open_devices() - self.paths
        if opened:
            raise Failure("devices", what, ", ".join(sorted(opened)))


def _exists(path: str) -> bool:
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def _open_devices() -> set[str]:
    """Return the GPU devices among the descriptors and the mappings of this process."""
    return {path for path in (*_of_descriptors(), *_of_mappings()) if path.startswith(NODES)}


def _of_descriptors() -> list[str]:
    found = []
    try:
        for name in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{name}"))
            except OSError:  # the descriptor of listdir itself
                continue
    except OSError:  # no /proc: unknown
        pass
    return found


def _of_mappings() -> list[str]:
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            return [line[line.index("/") :].rstrip("\n") for line in file if " /dev/" in line]
    except OSError:  # no /proc: unknown
        return []
