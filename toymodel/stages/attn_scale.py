"""Stage 14: scores scaled by 0.12 in place of 1/√w, w the width of a head.

Queries and keys are RMS-normalised, so the scale bounds the scores by 0.12·w. The constant is the published
one, in the language model and in the toy alike, and does not mean the same in both: at w = 128 it is 1.36 times
the usual scale and sharpens attention, at the toy's w = 32 it is 0.68 times, at w = 16 0.48 times, and flattens
it. It is kept because the published toy used it; its parent there was the fixed window, not this chain.
"""

from __future__ import annotations

from toymodel.stages.long_short import LONG_SHORT

ATTN_SCALE = LONG_SHORT.then("attn_scale", "scores scaled by 0.12", attention_scale=0.12)
