"""What the supervisor's tests run in their workers: modules that do harm on purpose."""
