"""Strategy-based contrastive decoding (PAL paper, section 3.4): plan, contrast, draw, engine.

These are the parts ``model.generate`` and ``pal generate`` are made of. They know tensors, and of
a model no more than the engine's protocol of a decoder.
"""
