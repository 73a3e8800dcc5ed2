"""Bills: readers and checks that every bill source shares, and the month that replaces itself in `charges`."""
