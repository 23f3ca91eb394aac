"""Corpora to samples to batches.

Data flows one way: ``esconv`` and ``personachat`` read and validate corpora, ``splits`` picks
dialogues for training, validation and test, ``samples`` picks the turns to predict, ``templates``
(with ``tokenizer``) writes a sample as token ids, and ``batches`` plans and pads.
"""

from pal.data.esconv import load_esconv, split_dialogues, write_pesconv, write_released
from pal.data.personachat import load_personachat
from pal.data.samples import Sample, build_samples

__all__ = [
    "Sample",
    "build_samples",
    "load_esconv",
    "load_personachat",
    "split_dialogues",
    "write_pesconv",
    "write_released",
]
