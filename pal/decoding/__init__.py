"""Strategy-based contrastive decoding (PAL paper, section 3.4): plan, contrast, sampling, engine.

``model.generate`` and ``pal generate`` are built from these parts. They work on tensors, and use a
model only through the engine's protocol of a decoder.
"""
