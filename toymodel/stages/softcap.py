"""Stage 12: logits bounded by 15 in place of 30.

    z ← 15·tanh(z/15)

The bound itself came with the value mixing; here the language model halves it. The published toy keeps 30 throughout.
A bounded softmax over V tokens cannot be surer than 1 / (1 + (V − 1)·e^(−30)).
"""

from __future__ import annotations

from toymodel.stages.truncated_rope import TRUNCATED_ROPE

SOFTCAP = TRUNCATED_ROPE.then("softcap", "logits within ±15", softcap=15.0)
