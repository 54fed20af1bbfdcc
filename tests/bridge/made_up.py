"""Folders of made-up runs of known behaviour, of the toy and of language models."""

import numpy as np

from sims.measure.rows import MeasurementRows
from sims.measure.summarise import summarise
from sims.runs.lm_measure_config import LmMeasureConfig, LmRun
from sims.runs.measure_config import MeasureConfig
from sims.runs.store import RunFolder
from spectra import Spectrum
from toymodel.config import RunConfig

STAGES = ("rope", "muon")
WIDTH = 48
BAND = ("31:20", "clean", True)


def sheets(stage, size, seed, gain, families, sites=("final",), steps=6, window=(10, 40)):
    """Measurements of a made-up run.

    The loss falls with tokens, in the second stage `gain` times as fast; the exponent falls over training, depends on
    the stage at equal loss, and on the seed a little.
    """
    generator = np.random.default_rng([STAGES.index(stage), size, seed])
    for step in range(steps + 1):
        sheet = MeasurementRows(step, step * size * 1_000)
        speed = gain if stage == STAGES[1] else 1.0
        loss = 6 - 0.5 * step * speed + 0.01 * generator.normal()
        sheet.row("val_loss", "loss", "validation", loss)
        for depth, site in enumerate(sites):
            decay = 1 + 0.1 * loss + 0.3 * (stage == STAGES[1]) + 0.01 * generator.normal() + 0.05 * depth
            noise = np.exp(0.01 * generator.normal(size=WIDTH))
            values = np.arange(1, WIDTH + 1) ** -decay * noise
            spectrum = Spectrum(values, n=200, d=WIDTH, centred=True)
            summarise(sheet, "activation", site, spectrum, [window])
        gradient = np.arange(1, 9) ** -(1 + 0.01 * generator.normal())
        summarise(
            sheet,
            "gradient",
            "blocks.0.attn.o",
            Spectrum(gradient, "singular", n=8, d=900, centred=False),
            [],
        )
        for name, value in families.items():
            which = (
                dict(zip(("band", "regime", "seen"), name, strict=True)) if name == BAND else {"detail": name}
            )
            sheet.row(
                "h_peak",
                "table",
                "embed",
                value + 0.001 * generator.normal(),
                **which,
                null=0.1,
                null_high=0.15,
            )
        yield sheet


def write(folder, config, measure, found):
    run = RunFolder(folder / config.run_id)
    run.start(config, measure, {"command": "test", "versions": {}})
    every = list(found)
    for sheet in every:
        run.keep_part(sheet.step, sheet.rows, sheet.spectra)
    last = every[-1]
    run.finish(
        {"ended": "finished", "step": last.step, "tokens": last.tokens, "val_loss": last.rows[0]["value"]}
        | {
            "validation_overlap": 0.0,
            "seconds": {"training": 1.0 + 0.001 * ((config.seed + ord(config.stage[0])) % 3)},
        }
    )


def toy_runs(folder, sizes=(32, 128), seeds=(0, 1, 2), gain=1.5, **measured):
    for stage in STAGES:
        for size in sizes:
            for seed in seeds:
                config = RunConfig(stage=stage, batch_size=size, seed=seed)
                write(
                    folder,
                    config,
                    MeasureConfig(),
                    sheets(stage, size, seed, gain, {BAND: 0.3}, **measured),
                )
    return folder


def text_runs(folder, stages=STAGES, sizes=(8,), seeds=(0, 1, 2), gain=1.5, lr=None, **measured):
    for stage in stages:
        for size in sizes:
            for seed in seeds:
                config = LmRun(f"{stage}-{size}-{seed}", stage, size, lr, seed, 6, 1_000 * size)
                found = sheets(stage, size, seed, gain, {"weekdays": 0.3, "digits": 0.1}, **measured)
                write(folder, config, LmMeasureConfig(), found)
    return folder
