"""`tokenmesh keys`: the file of API keys."""
