"""Models made smaller."""
