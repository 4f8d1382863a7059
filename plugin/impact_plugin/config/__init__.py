"""What operators write: settings, sources, destinations, and how mistakes in them are told."""
