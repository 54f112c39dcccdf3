"""The owner's access to its operating system and its interpreter: descriptors, locks, waiting, paths."""
