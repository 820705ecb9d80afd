"""The aggregation server: asks sites for turns, sums them, remembers the model."""
