"""Between the contract and the Engine seam."""
