"""Real text as token shards, made without a network once its packages are there."""

from sims.bridge.text.documents import documents
from sims.bridge.text.making import MANIFEST, BuildOptions, build
from sims.bridge.text.recorded import RecordedTokenizer
from sims.bridge.text.sources import DEBIAN, Source, debian_sources, file_sources
from sims.bridge.text.tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "DEBIAN",
    "MANIFEST",
    "BuildOptions",
    "RecordedTokenizer",
    "Source",
    "Tokenizer",
    "build",
    "debian_sources",
    "documents",
    "file_sources",
    "load_tokenizer",
]
