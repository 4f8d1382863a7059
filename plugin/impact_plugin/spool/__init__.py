"""Events that were answered for and are not delivered yet, and those that never will be: ports and backends."""
