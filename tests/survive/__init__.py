"""Kills, power cuts and flipped bits, at a scale of their own: `make survive`."""
