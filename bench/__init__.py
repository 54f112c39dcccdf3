"""Benchmarks: what a start costs, what memory a process owns, and whether anything grows. See README.md here."""
