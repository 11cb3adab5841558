"""Output for people: text and tables that fit any width, in which untrusted text cannot control the
terminal."""
