"""Sends requests to impact.com: limits, the HTTP client, and what a response means."""
