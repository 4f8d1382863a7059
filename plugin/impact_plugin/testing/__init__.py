"""Public stand-ins for the systems on either side of the plugin, for its own tests and for operators' tests."""
