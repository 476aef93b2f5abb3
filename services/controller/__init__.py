"""The control plane: leases for workers, endpoints for gateways."""
