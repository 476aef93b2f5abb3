"""How fast the mesh itself is: a load generator, scenarios, and a report made of their results."""
