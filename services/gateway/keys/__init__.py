"""API keys: who may enter, what for, and how much of it."""
