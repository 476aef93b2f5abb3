"""Decides what runs when: sequences, their places and their KV blocks. Knows no tensors."""
