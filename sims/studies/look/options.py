"""What of a text is measured. Loads without torch, for the command line."""

from __future__ import annotations

from dataclasses import dataclass

from sims.system.errors import MeasureError
from toymodel.limits import plain_numbers


@dataclass(frozen=True)
class TextOptions:
    """Set how much of a text is measured.

    Args:
        length: inputs per sequence; by default 256, or the largest number that the model takes.
        tokens: tokens of the activation spectra at most, from the start of the text, in whole sequences.
        gradients: sequences of the per-sample gradient spectra at most; 0 leaves them out.

    Raises:
        MeasureError: a number below its minimum, or what is no whole number.
    """

    length: int | None = None
    tokens: int = 16_384
    gradients: int = 64

    def __post_init__(self) -> None:
        plain_numbers(self, MeasureError)
        for name, least in (("length", 1), ("tokens", 1), ("gradients", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise MeasureError(f"{name} is {value}; it must be at least {least}")
        if self.gradients == 1:
            raise MeasureError("gradients is 1; a spectrum across samples needs 2 or more, or 0 for none")

    def length_for(self, longest: int | None) -> int:
        """Return the inputs per sequence for a model that takes `longest` at most.

        Raises:
            MeasureError: more are asked for than the model takes.
        """
        if self.length is None:
            return min(256, longest or 256)
        if longest is not None and self.length > longest:
            raise MeasureError(f"length is {self.length}, and this model takes {longest} inputs; lower it")
        return self.length
