"""The covariance spectrum of token windows, before any model has seen them."""
