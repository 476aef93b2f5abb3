"""Other gateways under the same load, for comparison. Each needs an installation of its own."""
