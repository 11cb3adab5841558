"""Reports of differences for framework developers: a script without the harness, and an issue."""
