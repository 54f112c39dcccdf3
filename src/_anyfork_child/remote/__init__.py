"""Templates on other machines: a relay beside the owner, one beside the templates, and the connection between."""
