"""Run folders in every state, written without any training."""

import json
import math

from sims.measure.rows import MeasurementRows
from sims.runs.columns import WHICH
from sims.runs.lm_measure_config import LmMeasureConfig, LmRun
from sims.runs.measure_config import MeasureConfig
from sims.runs.store import RunFolder
from toymodel.config import RunConfig

PLAIN = {"low": math.nan, "high": math.nan, "null": 0.1, "null_high": 0.2, "status": "ok", "reason": ""}


def band(name, regime, seen):
    return {"band": name, "regime": regime, "seen": seen}


def measured(losses, tokens_per_step, every=10):
    """Rows and spectra of a run whose other numbers follow from its losses."""
    rows, spectra = [], []
    for i, loss in enumerate(losses):
        where = {"step": i * every, "tokens": i * every * tokens_per_step}
        numbers = [
            ("val_loss", "loss", "validation", {}, loss),
            ("alpha", "activation", "final", {"window": "1-10"}, loss / 2),
            ("rankme", "activation", "final", {}, 10 * loss),
            ("top_share", "activation", "final", {"detail": "10"}, 0.5),
            ("h_peak", "probe", "final", band("31:20", "clean", False), 0.5 - abs(i - 1) / 10),
            ("h_peak", "probe", "final", band("29:0", "clean", True), 0.3 - abs(i - 1) / 10),
            ("h_peak", "probe", "final", band("29:0", "matched", True), 9.0),
            ("rankme", "weight", "embed", {}, 99.0),
        ]
        rows += [
            {**where, **PLAIN, "quantity": q, "object": o, "site": s, **WHICH, **which, "value": v}
            for q, o, s, which, v in numbers
        ]
        spectrum = {
            "object": "activation",
            "site": "final",
            "kind": "eigenvalue",
            "n": 8,
            "d": 4,
            "centred": True,
        }
        spectra.append({**where, **spectrum, "values": [loss, loss / 2, loss / 4]})
    return rows, spectra


def finished(out, config, losses=(4.0, 3.0, 2.5), ended="finished", measure=None):
    """A complete run folder, as a run leaves it, without the training."""
    folder = RunFolder(out / config.run_id)
    folder.start(config, measure or MeasureConfig(), {"command": "test", "git": {"dirty": False}})
    folder.keep_part(0, *measured(losses, config.tokens_per_step))
    step = 10 * (len(losses) - 1)
    outcome = {"ended": ended, "step": step, "tokens": step * config.tokens_per_step, "val_loss": losses[-1]}
    folder.finish({**outcome, "seconds": {"training": 30.0, "measurement": 10.0}})
    return folder


def unsealed(run):
    """Take the digests away, as in a run of an earlier version: its files can then be edited."""
    file = run / "done.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in record.items() if k not in ("files", "sha256")}))


def every_state(out):
    """Two stages × two seeds complete, beside every other state that a run can be in."""
    for i, stage in enumerate(("baseline", "muon")):
        for seed in (0, 1):
            finished(out, RunConfig(stage=stage, seed=seed, lr=1e-3), (4.0, 3.0 - i, 2.5 - i + seed / 10))
    finished(out, RunConfig(stage="rope", lr=9.0), (4.0, math.nan), "diverged")
    finished(out, RunConfig(stage="rope", lr=2e-3, target_loss=2.6), ended="target")
    finished(out, RunConfig(stage="rope", lr=3e-3), ended="pruned")
    for seed, state in enumerate(("waiting", "running", "interrupted", "failed")):
        config = RunConfig(stage="untied", seed=seed)
        begun = RunFolder(out / config.run_id)
        begun.start(config, MeasureConfig(), {})
        if state != "waiting":
            progress = {"step": 50, "steps": config.steps, "val_loss": 3.5, "ended": None}
            (begun.path / "progress.json").write_text(json.dumps(progress))
            (begun.path / ".lock").touch()
        if state == "failed":
            begun.fail("OSError: no space left", "Traceback …\n")
    (out / "trackers").mkdir()
    (out / ".hidden").mkdir()
    (out / "report.html").write_text("no folder")
    return out


def run_id(stage, seed=0, **changes):
    return RunConfig(stage=stage, seed=seed, **changes).run_id


def language_model(out, seed=0, losses=(4.0,), ended="finished", **fields):
    """A measured run of a language model; a loss a step."""
    config = LmRun(f"lm-{seed}", "rope", 8, lr=None, seed=seed, steps=6, tokens_per_step=1000, **fields)
    run = RunFolder(out / config.run_id)
    run.start(config, LmMeasureConfig(), {})
    for step, loss in enumerate(losses or (math.nan,)):
        sheet = MeasurementRows(step, step * 1000)
        if losses:
            sheet.row("val_loss", "loss", "validation", loss)
        run.keep_part(step, sheet.rows, sheet.spectra)
    last = losses[-1] if losses else math.nan
    run.finish({"ended": ended, "step": 6, "tokens": 6000, "val_loss": last, "seconds": {"training": 1.0}})
    return run
