"""The service's ports: what a request is, who answers it, and with what."""
