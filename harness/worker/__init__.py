"""Worker processes, one for each backend, isolated from its faults. This package does not depend on
models."""
