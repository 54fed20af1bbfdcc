"""`speclens inspect`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sims.models.checkpoint_info import CheckpointOptions


@dataclass(frozen=True)
class Inspect:
    """Describe a checkpoint: format, sizes, training step, and what can be measured.

    Reads nanoGPT's ckpt.pt, states of the GPT-2 shape (modded-nanogpt up to U-Net skips) as .pt or .safetensors, local
    folders of Hugging Face with any decoder (extra `hf`), and run folders of this package. A folder of checkpoints is a
    run; its last one is described. Code in a file is never run. `speclens look` measures weights of all other models.

    Examples:
        speclens inspect out/ckpt.pt
        speclens inspect logs/run --heads 6 --tokens-per-step 524288
        speclens inspect pythia-70m/step1000 --json
    """

    path: tyro.conf.Positional[Path]
    """A checkpoint, or a folder of checkpoints."""
    options: Annotated[CheckpointOptions, tyro.conf.arg(name="")] = field(default_factory=CheckpointOptions)
    json: bool = False
    """One JSON object on stdout in place of tables; notes go to stderr."""

    def run(self) -> int:
        """Print the description; return 0."""
        from sims.models.checkpoint_text import show_checkpoint
        from sims.models.describe import describe
        from sims.pages.answer import answering

        with answering(self.json) as answer:
            found = describe(self.path, self.options)
            if answer is None:
                show_checkpoint(found)
            else:
                answer |= found
        return 0
