"""What the owner has of its operating system and its interpreter: descriptors, locks, waiting, paths."""
