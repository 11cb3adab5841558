"""The backend ``pytensor``: PyTensor, the successor of Theano."""
