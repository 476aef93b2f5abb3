"""Chooses tokens, batched."""
