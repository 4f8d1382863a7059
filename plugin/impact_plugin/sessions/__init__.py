"""Sessions: decide on unique clicks, and remember visitors' click ids."""
