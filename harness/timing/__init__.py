"""Speed measurement: backends take turns on the same machine, and each must prove that it computed
every timed step."""
