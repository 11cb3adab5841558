"""Code that tests of workers run in their workers: it damages the process on purpose."""
