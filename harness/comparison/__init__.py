"""Changes between two runs of checks or of speeds: an upgrade, a new machine, a commit."""
