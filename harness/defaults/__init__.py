"""The differences between frameworks' defaults: a catalogue, and measurements that verify it."""
