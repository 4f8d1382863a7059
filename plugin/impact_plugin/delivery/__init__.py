"""Sending to impact.com: what an answer means (pure), and the client that asks."""
