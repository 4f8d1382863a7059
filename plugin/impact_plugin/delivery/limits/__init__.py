"""When a request may be sent: breaker, quota, concurrency limit, retry budget, and the scheduler in front of them."""
