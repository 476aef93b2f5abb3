"""Attention over packed steps and a paged KV cache."""
