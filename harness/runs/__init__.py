"""The code that ``check`` and ``bench`` share: shards, plans of runs, and comparisons of runs."""
