"""The floor: what the books hold, and how it is written down.

Everything above meets here and nowhere else: `ingest` writes facts, `attribution` writes conclusions, `api` reads both.
This package imports none of the others.
"""
