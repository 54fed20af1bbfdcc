"""Training logs of public speed runs: tokens, throughput and outcome of each record."""
