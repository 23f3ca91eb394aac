"""Simulated seekers: a language model with a persona card talks to any supporter.

A simulated seeker is no person. What it shows is how a system behaves in a whole dialogue; whether
people are helped, only people can say.
"""
