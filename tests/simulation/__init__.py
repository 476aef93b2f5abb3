"""The mesh's pure decisions under a fake clock and network: many schedules a second, each exact."""
