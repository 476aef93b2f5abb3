"""Vectors of texts, and documents in the order of their relevance."""
