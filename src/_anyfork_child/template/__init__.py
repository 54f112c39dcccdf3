"""The template process: its commands, the loop that forks, its children, its shutdown."""
