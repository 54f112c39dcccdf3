"""Templates on other machines: a local and a remote relay, and the connection between them."""
