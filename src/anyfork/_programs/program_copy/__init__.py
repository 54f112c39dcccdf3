"""The running program as a template: fork_here, and the reasons against a fork."""
