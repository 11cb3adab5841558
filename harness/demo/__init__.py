"""The command ``harness demo``: a small check that agrees, or the same check with an intentional
fault in the backend."""
