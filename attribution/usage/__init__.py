"""Usage: spans become calls, chains and hourly quantities per meter and dimension; the heavy pass, once per span."""
