"""From a decoded event to its outcome, with sessions in between."""
