"""Runs in PyInstaller, for each program that imports anyfork: modules that are imported by name are taken along.

Adapters of other libraries are not among them: a program that uses one imports it, and PyInstaller sees that.
"""

from PyInstaller.utils.hooks import collect_submodules

PACKAGES = ("_anyfork_child", "anyfork", "cloudpickle")
ADAPTERS = ("anyfork.contrib", "anyfork.joblib")


def is_needed(name: str) -> bool:
    """Return whether a module may be imported by name, without an import that PyInstaller sees."""
    return not name.startswith(ADAPTERS)


hiddenimports = [name for package in PACKAGES for name in collect_submodules(package, is_needed)]
