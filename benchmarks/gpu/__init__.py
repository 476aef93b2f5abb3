"""The default engine's steps on a GPU."""
