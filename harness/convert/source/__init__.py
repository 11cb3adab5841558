"""Writer of a trained model as source code of a framework."""
