"""What operators configure: settings, sources and destinations, and the errors about mistakes in them."""
