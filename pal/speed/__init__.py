"""The speed of this machine, compared with what one would use otherwise."""
