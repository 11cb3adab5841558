"""Code generation: a trained model is written as source code of a framework."""
