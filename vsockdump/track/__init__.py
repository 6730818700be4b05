"""What packets mean: connections, their lifecycle, true payload and credit."""
