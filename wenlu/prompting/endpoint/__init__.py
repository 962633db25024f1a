"""OpenAI-compatible endpoints as backends."""
