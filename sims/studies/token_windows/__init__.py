"""The covariance spectrum of token windows, without any model."""
