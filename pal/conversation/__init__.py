"""Talking with a model: one session for Python, the terminal, the server and the page."""
