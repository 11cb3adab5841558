"""Parts that all commands share: options and their ranges, settings, help, and result."""
