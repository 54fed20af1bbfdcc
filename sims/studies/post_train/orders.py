"""Which orders of n-grams the study takes; it imports nothing, so that commands start at once."""

# A prompt has six tokens, and a continuation begins after n − 1 of them.
LEAST_ORDER, MOST_ORDER = 2, 7
