"""What a new process does before and after user code: attributes, preparation, last words, exit."""
