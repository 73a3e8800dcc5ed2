"""How each format becomes rows of `charges` and `spans`; what emitters mean by their numbers is data here, not code."""
