"""Corpora to samples to batches.

Data flows one way: ``esconv`` and ``personachat`` read and validate corpora, ``splits`` picks
dialogues for training, validation and test, ``samples`` picks the turns to predict, ``templates``
(with ``tokenizer``) writes a sample as token ids, and ``batches`` plans and pads.
"""
