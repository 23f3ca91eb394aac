"""Human evaluation: blinded sheets, their key, and results of the answers."""
