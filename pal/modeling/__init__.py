"""The response model: co-attention fusion of persona and dialogue on Blenderbot-small."""
