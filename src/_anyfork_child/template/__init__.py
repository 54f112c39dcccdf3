"""A template: its commands, the loop that forks, its children, its shutdown."""
