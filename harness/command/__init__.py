"""Code that all commands share: options and their ranges, user-defined defaults, help texts, and
results."""
