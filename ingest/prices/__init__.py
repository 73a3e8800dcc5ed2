"""Price lists: parsed into rows of `prices`, validated, and staged where a rate is implausible."""
