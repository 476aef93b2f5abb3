"""A whole mesh of real processes under fire: faults on a seeded schedule, clients that compare."""
