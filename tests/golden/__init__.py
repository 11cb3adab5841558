"""Golden vectors: what independent kernels give for every definition, and how they were made."""
