"""Price lists: the forms they come in, read into rows of `prices`, checked and staged before they take effect."""
