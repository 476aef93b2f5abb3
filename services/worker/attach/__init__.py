"""The worker at its controllers: lease, heartbeats, drain."""
