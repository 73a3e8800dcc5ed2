"""The oracle: attribution once more, slow and obvious, to hold the engine to.

Plain dictionaries, loops and fractions, one file a chapter of the rules (`docs/concepts.md`); every function names the rule it
follows. It shares no code with the engine and knows none of its tricks: no frames, no codes, no running sums. Where the rules
leave a choice, the line says "Reading:" and why.

    spans ─▶ chains ─▶ calls ─▶ ownership ─▶ usage ─▶ rating ─▶ ladder ─▶ costs
              CH-1..3   CA       CH-4..7, ID           RA-1..3   RA-4, 5   RA-6, MO

Amounts are `Fraction`s up to the last step, so no rounding can hide a mistake; `money` says what rounding may do to them.
"""
