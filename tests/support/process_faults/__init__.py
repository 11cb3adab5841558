"""What the tests of workers run in their workers: modules that do harm on purpose."""
