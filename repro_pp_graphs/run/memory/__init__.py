"""The GPU memory that weights take, and what would make a load fit beside them."""
