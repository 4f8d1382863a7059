"""rudder-server's side of the transformer contract: the bodies it sends, and what it does with replies. Pure."""
