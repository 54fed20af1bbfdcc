"""What post-training does to the geometry of states, and to answers."""
