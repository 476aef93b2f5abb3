"""Fits conversations to what a chat template can take."""
