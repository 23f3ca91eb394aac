"""Knowledge about what a seeker says, for MISC: by a COMET model, or by any language model."""
