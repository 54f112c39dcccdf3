"""Encoding of values and functions as bytes and descriptors, and decoding. Used by the owner and by its processes."""
