"""Personas: the extractor that infers them from the seeker's turns, and PESConv annotation."""
