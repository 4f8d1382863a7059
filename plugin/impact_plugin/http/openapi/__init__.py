"""Generates the OpenAPI document from the routes and the Structs of the bodies."""
