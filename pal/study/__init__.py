"""Studies with people over the web: blinded chats with two systems, and judgements of personas."""
