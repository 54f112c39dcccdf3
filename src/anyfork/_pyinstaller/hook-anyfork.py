"""Runs in PyInstaller, for each program that imports anyfork: modules that are imported by name are taken along."""

from PyInstaller.utils.hooks import collect_submodules

PACKAGES = ("_anyfork_child", "anyfork", "cloudpickle")
hiddenimports = [name for package in PACKAGES for name in collect_submodules(package)]
