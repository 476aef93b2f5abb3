"""How services talk: errors, servers, channels, logs and metrics."""

import os

# gRPC's C library writes to standard error, past the logs, what comes back as an error too: a taken
# port, for one. It reads this when it is loaded, so it must be set before `import grpc`.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
