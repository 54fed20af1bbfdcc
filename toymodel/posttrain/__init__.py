"""Post-training of a trained toy: narrow data, preferences, verifiable rewards."""
