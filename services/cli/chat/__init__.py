"""`tokenmesh chat`: a conversation in the terminal."""
