"""What is given in place of a model, of a path or of sequences is refused with what it is and what is wanted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from formats import nanogpt_checkpoint
from formats import sequences as drawn
from torch import nn

from sims.models.checkpoints import CheckpointRun, inspect, load, read
from sims.models.layout import Layout, Projection
from sims.models.module import ModuleSubject
from sims.system.errors import MeasureError
from toymodel.errors import CheckpointError


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(29, 8), nn.Linear(8, 29, bias=False)

    def forward(self, tokens):
        return self.embed(tokens)


MATRICES = {name: Projection(name) for name in ("embed", "head")}
LAYOUT = Layout({"embed": "embed", "final": "embed"}, MATRICES, "head")


def with_weight(weight):
    model = Tiny()
    model.head.weight = nn.Parameter(weight, requires_grad=False)
    return model


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("model", "says"),
    [
        (lambda: Tiny().state_dict(), "the model is a OrderedDict; .* load_state_dict"),
        (lambda: Tiny().parameters(), "the model is a generator; .* pass the module itself"),
        (lambda: None, "the model is a NoneType"),
        (lambda: "gpt2", "the model is a str"),
        (lambda: Tiny().to("meta"), r"embed.weight is on the meta device.*, head.weight"),
        (lambda: with_weight(torch.eye(29, 8).to_sparse()), "head.weight is sparse_coo"),
        (lambda: with_weight(torch.ones(29, 8, dtype=torch.int8)), "head.weight is of int8"),
        (lambda: with_weight(torch.ones(29, 8, dtype=torch.complex64)), "head.weight is of complex64"),
        (lambda: with_weight(torch.ones(29, 8).to(torch.float8_e4m3fn)), "head.weight is of float8_e4m3fn"),
    ],
)
def test_what_is_no_model(model, says):
    with pytest.raises(MeasureError, match=says):
        ModuleSubject.of(model(), LAYOUT, 0)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "sequences",
    [
        lambda: [[1, 2], [3, 4]],
        lambda: np.ones((2, 3), int),
        lambda: (row for row in drawn()),
        lambda: drawn().to_sparse(),
        lambda: drawn().to("meta"),
        lambda: torch.nested.nested_tensor([torch.tensor([1, 2]), torch.tensor([1, 2, 3])]),
        lambda: drawn().to(torch.complex64),
        lambda: drawn() > 3,
        lambda: drawn().float(),
        lambda: drawn()[0],
        lambda: drawn()[:, :1],
    ],
)
def test_what_are_no_sequences(sequences):
    subject = ModuleSubject.of(Tiny(), LAYOUT, 0)
    for use in (
        subject.losses,
        subject.last_states,
        subject.log_probs,
        lambda x: next(subject.activations(x, ("final",))),
    ):
        with pytest.raises(MeasureError, match=r"sequences (are|have) .*must be .*\(n, T\+1\)"):
            use(sequences())


@pytest.mark.parametrize("given", [lambda: Tiny(), lambda: Tiny().state_dict(), lambda: None, lambda: 3])
def test_what_is_no_path(given):
    for use in (load, read, inspect, CheckpointRun.of):
        with pytest.raises(
            CheckpointError, match=r"a checkpoint is a path, and this is a \w+; save it and name"
        ):
            use(given())


def test_paths_may_be_texts_and_come_from_a_generator(tmp_path):
    for step in (1, 2):
        torch.save(nanogpt_checkpoint(step=step), tmp_path / f"{step}.pt")
    run = CheckpointRun.of(path for path in sorted(tmp_path.iterdir()))
    assert run.steps == CheckpointRun.of(str(tmp_path)).steps == (1, 2)
    assert load(str(tmp_path / "1.pt")).step == 1
    assert isinstance(run.found[0].path, Path)
