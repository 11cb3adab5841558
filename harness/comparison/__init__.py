"""What changed between two runs, of checks or of speeds: an upgrade, another machine, a commit."""
