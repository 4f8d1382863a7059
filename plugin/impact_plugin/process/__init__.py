"""Processes: supervisor, worker, listening sockets, memory limit, and shutdown."""
