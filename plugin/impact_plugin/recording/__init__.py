"""Traffic as it came in, written down without persons."""
