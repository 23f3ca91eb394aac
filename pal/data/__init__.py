"""The data pipeline: from corpora to samples to batches.

Data flows one way: ``esconv`` and ``personachat`` read and validate corpora, ``splits`` picks
dialogues for training, validation and test, ``samples`` picks the turns to predict, ``templates``
(with ``tokenizer``) turns a sample into token ids, and ``batches`` plans batches and pads them.
"""
