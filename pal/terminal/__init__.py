"""The terminal chat: a conversation, its slash commands, the screen, and reading over a pipe."""
