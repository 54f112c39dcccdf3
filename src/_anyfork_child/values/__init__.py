"""Values and functions into bytes and descriptors, and back. Used by the owner and by its processes."""
