"""Where the sessions are kept: one port, and one file for each backend."""
