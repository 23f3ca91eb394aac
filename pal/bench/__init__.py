"""Speed on this machine, beside what one would use instead: one benchmark a file."""
