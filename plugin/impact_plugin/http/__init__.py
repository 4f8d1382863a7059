"""The HTTP servers of the three ports: routes, request handlers and responses."""
