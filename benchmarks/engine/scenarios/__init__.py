"""Our engine by itself: what its users feel beside throughput."""
