"""The code for templates and the processes forked from them. Standard library only; imports nothing of anyfork."""

HOST = ""  # the owner's name for this machine if the owner is on another one; set once, before all other imports
