"""The Generate stream: frames in, one message for each engine step out."""
