"""Documents from files of many kinds: which there are, their bytes, their text."""
