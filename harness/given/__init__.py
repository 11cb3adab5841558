"""Single passes on a user's own arrays, with any backend or with the oracle."""
