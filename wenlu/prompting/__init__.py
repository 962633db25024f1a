"""Prompts: written, compared and searched for, by measurement."""
