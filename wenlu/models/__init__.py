"""The model families and what they are made of."""
