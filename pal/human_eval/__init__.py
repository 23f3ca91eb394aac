"""Blinded sheets for people, their key, and what the answers say."""
