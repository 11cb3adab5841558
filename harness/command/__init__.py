"""Parts of every command: options and their ranges, settings, help, and result."""
