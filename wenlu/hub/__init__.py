"""Transformers folders, read and written."""
