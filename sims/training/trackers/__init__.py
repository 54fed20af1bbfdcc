"""Trackers: report runs to TensorBoard, W&B or Trackio while they train."""
