"""Worker processes: each runs one backend, so that a crash of the backend cannot harm the harness.
This package knows nothing of models."""
