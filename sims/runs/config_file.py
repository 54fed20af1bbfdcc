"""The configuration of a run as options of the command that trains it: config.yaml, which `--config` reads again.

run.json stays what a run is known by; this file is for people, and may be edited or deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sims.runs.lm_config import LmConfig
from sims.runs.measure_config import MeasureConfig
from sims.runs.spec import RunSpec
from sims.system.errors import QueryError
from sims.system.files import write_atomic
from sims.system.option_file import options_in, read_options
from toymodel.config import RunConfig
from toymodel.intervention import NONE
from toymodel.rates import ONE_RATE
from toymodel.tasks import task_values

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CONFIG = "config.yaml"
# Fields of a language model that no option has.
_NOT_TYPED = ("batch-size", "steps", "seed", "vocabulary", "data", "tokens-per-step")
_HEAD = """\
# What this run was made with. The same run again, under the same name, in another folder:
#     {command} --config {name} --out FOLDER
# Options that are typed win over those of the file.
"""


def config_text(config: RunSpec, measure: Any) -> str | None:
    """Return the text of config.yaml; None for a run that no command trains from options.

    Args:
        config: the run.
        measure: a dataclass of its measurements.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """Write lists in one line, and tables in blocks."""

        def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
            return super().represent_sequence(tag, sequence, flow_style=True)

    options = run_options(config, measure)
    if options is None:
        return None
    command = (
        "speclens train published" if isinstance(config, RunConfig) else "speclens train lm --data SHARDS"
    )
    text = yaml.dump(options, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)
    return _HEAD.format(command=command, name=CONFIG) + text


def write_config(folder: Path, config: RunSpec, measure: Any) -> None:
    """Write config.yaml into the folder of a run, for runs that a command trains from options."""
    text = config_text(config, measure)
    if text is not None:
        write_atomic(folder / CONFIG, lambda file: file.write(text.encode()))


def run_options(config: RunSpec, measure: Any) -> dict[str, Any] | None:
    """Return the options of a run, tables for their groups; None for a run that no command trains from options."""
    if isinstance(config, RunConfig):
        return _toy(config, measure)
    return _language_model(config, measure) if isinstance(config, LmConfig) else None


def options_from(path: Path, program: str) -> dict[str, Any]:
    """Return the options of a file, or of the folder of a run where the program trains what that describes.

    Args:
        path: a YAML or TOML file, or a folder.
        program: the command, such as "speclens train small".

    Raises:
        QueryError: a folder for another command, or a file or folder without options.
    """
    if not path.is_dir():
        return read_options(path)
    if not program.startswith("speclens train"):
        raise QueryError(
            f"{path} is a folder; `{program}` reads its options from a YAML or TOML file (only `speclens train` "
            "takes the folder of a run)"
        )
    return options_of_folder(path)


def options_of_folder(folder: Path) -> dict[str, Any]:
    """Return the options of the run of a folder by their full names.

    Raises:
        QueryError: no run folder, or a run that no command trains from options.
        StoreError: it cannot be read, or was damaged.
    """
    from sims.runs.kinds import run_spec
    from sims.runs.layout import TOY
    from sims.runs.measure_config import measure_config
    from sims.runs.store import RunFolder

    if not (folder / "run.json").exists():
        raise QueryError(f"{folder} is no run folder; name a YAML or TOML file, or the folder of one run")
    found = RunFolder(folder).identity()
    kind = found.get("kind", TOY)
    measure = measure_config(found["measure"]) if kind == TOY else found["measure"]
    text = config_text(run_spec(kind, found["train"]), measure)
    if text is None:
        raise QueryError(f"the run of {folder} is not trained from options; name a YAML or TOML file")
    return options_in(text, folder / CONFIG)


def _toy(config: RunConfig, measure: Any) -> dict[str, Any] | None:
    if not isinstance(measure, MeasureConfig):
        return None
    groups = {"task": task_values(config.task), "model": _plain(config.model), "measure": _plain(measure)}
    if config.intervention != NONE:
        groups["intervention"] = _plain(config.intervention)
    if config.rates != ONE_RATE:
        groups["rates"] = _plain(config.rates)
    apart = (*groups, "intervention", "rates")
    own = {name: value for name, value in _plain(config).items() if name not in apart}
    return own | {name: _named(values) for name, values in groups.items()}


def _language_model(config: LmConfig, measure: Any) -> dict[str, Any]:
    measured = measure if isinstance(measure, Mapping) else _plain(measure)
    lists = {"stage": config.stage, "lr": config.lr, "seeds": config.seed}
    batch = config.tokens_per_step
    own = {"tier": config.tier, **{name: [value] for name, value in lists.items()}, "batch-tokens": [batch]}
    # Sizes of a step and of the run are told in tokens; the vocabulary and the digest are those of the shards.
    kept = {k: v for k, v in _plain(config).items() if k not in (*own, *_NOT_TYPED, "intervention", "rates")}
    own |= {"tokens": config.steps * batch, **kept}
    if config.intervention != NONE:
        own["intervention"] = _plain(config.intervention)
    if config.rates != ONE_RATE:
        own["rates"] = _plain(config.rates)
    return own | ({"measure": True, "measuring": _named(measured)} if measured else {})


def _plain(values: DataclassInstance) -> dict[str, Any]:
    return _named({spec.name: getattr(values, spec.name) for spec in fields(values)})


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by the names of their options, tuples as lists."""
    return {name.replace("_", "-"): _lists(value) for name, value in values.items()}


def _lists(value: Any) -> Any:
    return [_lists(v) for v in value] if isinstance(value, tuple | list) else value
