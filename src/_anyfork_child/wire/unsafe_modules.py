"""The modules that a fork must be warned of, because they do not survive it once they are in use.

Runs in a program of which a copy is made, and in processes that look at the imports of a program.
"""

from __future__ import annotations

import sys

# Modules that are known not to survive a fork once they are in use, and why. Some tell whether they are in use.
UNSAFE = {
    "cupy": "CUDA does not work in a forked process",
    "gi.repository.Gtk": "a connection to the display must not be shared",
    "grpc": "its threads and locks are not there in a forked process",
    "jax": "its runtime has threads, which a fork does not copy",
    "mpi4py.MPI": "MPI may abort in a forked process",
    "numba.cuda": "CUDA does not work in a forked process",
    "polars": "its thread pool may hold locks that nobody releases in a forked process",
    "pycuda.autoinit": "CUDA does not work in a forked process",
    "pymongo": "its clients have threads and sockets that must not be shared",
    "ray": "its connection must not be shared",
    "tensorflow": "its runtime has threads, which a fork does not copy",
    "tkinter": "a connection to the display must not be shared",
}
CUDA = "torch.cuda"  # listed only when it is in use
QT = ("PySide6", "PySide2", "PyQt6", "PyQt5")


def unsafe_modules() -> dict[str, str]:
    """Return the loaded modules that are known not to survive a fork, and why."""
    found = {name: why for name, why in UNSAFE.items() if name in sys.modules}
    found |= {name: UNSAFE["tkinter"] for name in QT if f"{name}.QtWidgets" in sys.modules}
    cuda = sys.modules.get(CUDA)
    if cuda is not None and getattr(cuda, "is_initialized", bool)():  # it may be in the middle of its import
        found[CUDA] = UNSAFE["cupy"]
    return found
