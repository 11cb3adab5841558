"""Code that ``check`` and ``bench`` share: shards (parts of a run for several machines), lists of
planned cells, and comparisons of runs."""
