"""How services talk: errors, servers, channels, logs and metrics."""
