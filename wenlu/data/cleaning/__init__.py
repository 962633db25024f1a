"""What cleans text, finds copies, and shows what was done."""
