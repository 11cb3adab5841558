"""What a person reads of a run: text and tables that are whole at any width, nothing unsafe."""
