"""Transforms events to outcomes, with the answers of the sessions."""
