"""The claims of the theory: their own simulations, and their predictions against trained models."""
