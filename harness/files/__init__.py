"""Safe handling of files: size limits for reading, atomic writes, and recognition of a file's kind
by its content."""
