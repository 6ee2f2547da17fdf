"""Running it for years: people are told what is wrong, and what cannot be made anew is kept elsewhere."""
