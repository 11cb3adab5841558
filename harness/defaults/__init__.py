"""Differences between the frameworks' defaults: a catalogue, and runs that verify it."""
