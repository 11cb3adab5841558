"""A failure made as small as it stays wrong: fewer numbers, and less of the program."""
