"""The differences between frameworks' defaults: a catalogue, and measurements that test whether the
catalogue is right."""
