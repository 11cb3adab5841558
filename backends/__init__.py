"""The backends that ship with the project: one package for each framework."""
