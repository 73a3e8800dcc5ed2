"""The terminal: how results, prices, sources and explanations are printed."""
