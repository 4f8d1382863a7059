"""The wire protocols: each module implements the JSON and rules of one endpoint, and is independent of impact.com."""
