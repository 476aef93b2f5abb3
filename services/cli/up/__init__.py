"""`tokenmesh up`: a whole mesh on this machine."""
