"""`speclens look`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sims.models.checkpoint_info import CheckpointOptions
from sims.studies.look.options import TextOptions
from sims.system.command_options import ConfigFile
from sims.system.given import given, refuse


@dataclass(frozen=True)
class Look:
    """Look at any model: spectra of its weights by layer, each beside noise of the same shape.

    Reads folders of Hugging Face (shards too), nanoGPT's ckpt.pt, states of modded-nanogpt, safetensors and torch files
    with the state of a model, and run folders of this package. Weights need no data, no vocabulary and no step; one
    matrix is in memory at a time. With --text, activations and per-sample gradients of a decoder are measured too, and
    its loss. Code in a file is never run.

    Prints a table by layer and the findings, and writes a page with pictures, look-NAME/index.html, and its tables.

    Examples:
        speclens look out/ckpt.pt
        speclens look out/ckpt.pt --layers '*.attn.?' embed --all
        speclens look out/ckpt.pt --json --out none | head -c 300
        speclens look gpt2 --text essay.txt --length 64
        speclens look gpt2 --text essay.txt --predictive trigram gpt2-xl --draft
    """

    path: tyro.conf.Positional[Path]
    """A checkpoint: file or folder."""
    text: Path | None = None
    """A text in UTF-8: activations and gradients on it."""
    predictive: tuple[str, ...] = ()
    """Compare with approximate laws of the next token of the text: bigram, trigram, or a larger model (a path)."""
    draft: bool = False
    """Train a draft head for the token after next on the text: how often its tokens are accepted."""
    layers: tuple[str, ...] = ()
    """Names or patterns of matrices (blocks.3.*, '*.mlp.fc'); all by default."""
    out: Path | None = None
    """Folder of the page; by default look-NAME. The word none writes none."""
    all: bool = False
    """Every block and every number on the terminal."""
    json: bool = False
    """One JSON object on stdout in place of the table; notes go to stderr."""
    config: ConfigFile = None
    options: Annotated[TextOptions, tyro.conf.arg(name="")] = field(default_factory=TextOptions)
    checkpoint: Annotated[CheckpointOptions, tyro.conf.arg(name="")] = field(
        default_factory=CheckpointOptions
    )

    def __post_init__(self) -> None:
        if self.text is None:
            of_text = [*given(self, ("predictive", "draft")), *given(self.options)]
            of_text += given(self.checkpoint, ("heads", "activation", "tokens_per_step"))
            refuse(
                of_text, "only on a text, which weights do not need; name one with --text, or leave it out"
            )

    def run(self) -> int:
        """Measure, write the page and print the table; return 0."""
        from sims.pages.answer import answering
        from sims.studies.look.look import look
        from sims.studies.look.terminal import Bar, show
        from sims.system.files import check_folder

        place = self.path.resolve()
        out = Path(f"look-{place.name}") if self.out is None else self.out
        written = out != Path("none")
        if written:
            check_folder(out)
        replaced = ", in place of the one that was there" if (out / "index.html").exists() else ""
        with answering(self.json) as answer:
            with Bar() as bar:
                found = look(
                    self.path,
                    self.text,
                    layers=self.layers,
                    predictive=self.predictive,
                    draft=self.draft,
                    text=self.options,
                    checkpoint=self.checkpoint,
                    progress=bar,
                )
            page = found.page(out) if written else None
            show(found, everything=self.all, answer=answer)
            if page is not None:
                print(f"page: {page}{replaced}", file=sys.stderr)
        return 0
