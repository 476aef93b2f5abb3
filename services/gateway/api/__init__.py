"""The typed services of tokenmesh.gateway.v1, and what all calls of clients share."""
