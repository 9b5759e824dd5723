"""Studies of one question each, beside the comparisons of methods."""
