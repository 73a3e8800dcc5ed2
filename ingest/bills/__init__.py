"""Bills: the readers and checks that bill sources share, and the replacement of a month in `charges`."""
