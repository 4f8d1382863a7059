"""What holds a request back: quotas, breakers, concurrency, and whose turn it is."""
