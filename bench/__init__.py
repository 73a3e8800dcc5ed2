"""Figures of speed and memory, as ratios against a peer in the same run; never timed tests. `make bench` runs them all."""
