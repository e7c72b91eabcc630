"""How good a solution is when the truth is not known: corrected values, intervals, and doubts in words."""
