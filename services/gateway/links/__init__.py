"""Connections to workers, and which of them gets a request."""
