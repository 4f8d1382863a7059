"""Recordings of traffic without personal data."""
