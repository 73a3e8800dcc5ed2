"""Usage: spans become calls, chains and hourly quantities per meter and dimension; the pass over spans, once per span."""
