"""The conversions that were sent, so that none is sent twice."""
