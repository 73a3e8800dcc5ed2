"""Mutated inputs at every reader and every door: nothing escapes, hangs, or takes a neighbour along. `make fuzz SEED= COUNT=`."""
