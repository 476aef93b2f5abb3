"""What a token costs a gateway's core, by way of asking and beside another checkout."""
