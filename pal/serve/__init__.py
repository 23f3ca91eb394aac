"""The server: OpenAI's chat API over a session, and the page that talks to it."""
