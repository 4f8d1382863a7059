"""Recorded traffic: how it is written down without persons in it, read again, replayed and reported."""
