"""A language model in the supporter's place: no training, one request a reply."""
