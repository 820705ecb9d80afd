"""Private training and evaluation: the only rooms, with models, that know torch."""
