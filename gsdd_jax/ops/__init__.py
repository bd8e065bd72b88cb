"""Functions of arrays that the networks are made of: convolutions, norms and poolings."""
