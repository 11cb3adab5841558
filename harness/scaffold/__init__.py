"""The command ``harness new-backend``, which writes the package of a new backend."""
