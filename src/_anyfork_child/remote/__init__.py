"""Templates on other machines: a near relay beside the owner, a far relay beside the templates, their connection."""
