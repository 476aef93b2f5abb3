"""Routing policies, one to a file."""
