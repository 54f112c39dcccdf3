"""The running program as a template: fork_here, and what speaks against a fork."""
