"""Array functions of the networks: convolution, normalization, pooling."""
