"""FOCUS files: checked against the specification's column table, and written from allocated costs."""
