"""The backends that ship with the project, one file each."""
