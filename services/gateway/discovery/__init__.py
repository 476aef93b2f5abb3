"""What controllers tell of workers, merged into who serves what."""
