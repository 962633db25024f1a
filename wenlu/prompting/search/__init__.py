"""Searches among prompts: what is tried, how the best is chosen, and what the choice is worth."""
