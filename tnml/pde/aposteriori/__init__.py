"""What a solution is worth without a truth: corrected values, intervals, and doubts in plain words."""
