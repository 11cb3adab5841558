"""Find the causes of a difference by substitution: with the right value in one place, all else
agrees."""
