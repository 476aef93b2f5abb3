"""`tokenmesh`: the command line."""
