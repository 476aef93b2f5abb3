"""Loads models into engines and streams what they generate."""
