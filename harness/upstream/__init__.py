"""Reports of differences for framework developers: an issue text, and a script that does not need
the harness."""
