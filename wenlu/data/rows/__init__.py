"""Rows of examples for fine-tuning: read, counted, split, stored, ordered and put into batches."""
