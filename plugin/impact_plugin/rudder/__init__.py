"""The shapes and rules of rudder-server's requests."""
