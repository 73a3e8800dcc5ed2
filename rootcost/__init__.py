"""Command line, service and demo: the packages that call the others and are called by none."""
