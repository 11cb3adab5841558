"""Output for people: text and tables that fit any width and are safe to print."""
