"""Which phases does the geometry of states go through, and what carries each?"""
