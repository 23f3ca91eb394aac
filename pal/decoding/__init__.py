"""Strategy-based contrastive decoding (PAL paper, section 3.4): the paired cache and keyed noise.

These are the parts ``model.generate`` is made of. They know tensors only, no model and no text.
"""
