"""Code that all commands share: options and their ranges, settings, help texts, and results."""
