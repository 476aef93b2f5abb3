"""Where responses are kept: bounded, and for a while."""
