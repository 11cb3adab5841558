"""Where the frameworks' defaults differ: a catalogue, and the runs that hold it against them."""
