"""Measures the encoder engine: what batching brings, beside transformers by itself."""
