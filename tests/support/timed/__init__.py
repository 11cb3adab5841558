"""Backends that are honest about their speed, and backends that cheat."""
