"""Accepts, stores, delivers and deletes events from senders."""
