"""Worker processes, one for each backend, isolated from its faults; they know no model."""
