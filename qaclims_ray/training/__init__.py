"""The only training loop, and what every training is given; free of Ray."""
