"""What each command is made of: its options and their ranges, settings, help, and how it ends."""
