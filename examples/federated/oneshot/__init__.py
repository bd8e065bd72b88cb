"""One-shot federated learning by Flower; see docs/federation.md."""
