"""Sweeps: the best of many configurations within a time, by runs of the one loop."""
