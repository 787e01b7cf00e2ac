"""Small models whose behaviour is known in closed form."""
