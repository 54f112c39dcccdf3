"""Runs in templates and in the processes forked from them. Standard library only; imports nothing of anyfork."""

HOST = ""  # in an interpreter on another machine: what its owner calls that. Set once, before anything else is imported
