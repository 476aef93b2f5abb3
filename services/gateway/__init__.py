"""The data plane: every client request passes through here to a worker."""
