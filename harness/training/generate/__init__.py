"""Generation of text: a model that was trained on characters continues a prompt."""
