"""Unique clicks and the visitor's click id."""
