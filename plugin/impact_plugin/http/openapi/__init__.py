"""The description of every endpoint, made from the same data as the routes."""
