"""wenlu 文炉: a language model's whole life, from raw text to text that it writes."""

__version__ = "0.1.0"
