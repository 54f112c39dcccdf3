"""Runs in templates and in the processes forked from them. Standard library only; imports nothing of anyfork."""
