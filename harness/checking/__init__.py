"""Who agrees: every backend held against the oracle, cell by cell."""
