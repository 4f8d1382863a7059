"""Processes: supervisor, workers, sockets and memory."""
