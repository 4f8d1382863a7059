"""Events from senders: taken in, kept, delivered, and deleted on request."""
