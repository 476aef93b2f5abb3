"""Libraries for constrained decoding, and what holding outputs to forms costs the engine."""
