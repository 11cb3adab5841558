"""A fuzzer for backends: random functions, layers and models, compared with the oracle."""
