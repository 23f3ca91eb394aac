"""Trait studies: whether models infer stable traits, and whether traits affect responses."""
