"""Sets of examples that are known by name, and the user's own."""
