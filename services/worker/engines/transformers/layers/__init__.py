"""Layers that compute what a model's own do, faster."""
