"""The steps of a new process before and after user code: attributes, preparation, last words, exit."""
