"""Adapters for engines and frameworks, each behind an extra: ``anyfork.contrib.dask`` needs ``anyfork[dask]``."""
