"""The commands of `wenlu prompt`, one a file."""
