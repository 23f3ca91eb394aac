"""The trait wing: do language models infer stable traits, and do traits change what is said."""
