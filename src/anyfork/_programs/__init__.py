"""Python programs that start warm: the interface of the standard library's subprocess."""
