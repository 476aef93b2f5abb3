"""Constrained decoding by llguidance: forms become grammars, grammars say what may come next."""
