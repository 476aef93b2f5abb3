"""How fast the default engine is, beside its peers and by itself."""
