"""Search for the causes of a backend's differences. The search replaces a wrong value by the right
value, and tests whether all later values then agree."""
