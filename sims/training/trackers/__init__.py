"""Trackers: programs that show a run while it trains (TensorBoard, W&B, Trackio)."""
