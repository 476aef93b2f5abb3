"""Runs models as transformers' own generation does: each sequence by itself, with its own cache."""
