"""What people get wrong at the first try is refused with the remedy, or costs no more than its own numbers."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sims.models.probe import Probe
from sims.models.watched import WatchedSubject
from sims.monitor import Monitor, WatchedConfig
from sims.system.errors import MeasureError

SAMPLES, CLASSES = 16, 3


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, 6, generator=generator)
    return x, torch.arange(SAMPLES) % CLASSES


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES))


def watched(batch, model=None, **options) -> Monitor:
    return Monitor(model or network(), batch, every=2, to=None, **options)


def losses(monitor: Monitor) -> list[float]:
    rows = monitor.frame()
    return rows.loc[rows["quantity"] == "val_loss", "value"].tolist()


class TestCallsOfStep:
    @pytest.mark.parametrize("loss", [0.7, 3.0, torch.tensor(2.5), True, "3"])
    def test_a_loss_in_place_of_the_step_is_refused(self, batch, loss):
        monitor = watched(batch)
        with pytest.raises(MeasureError, match=r"step is .*loss=loss"):
            monitor.step(loss)
        assert monitor.frame()["step"].tolist() == [0] * len(monitor.frame())

    def test_counts_of_any_whole_type_are_taken(self, batch):
        monitor = watched(batch)
        for step in (1, torch.tensor(2), torch.tensor(4).numpy()[()]):
            monitor.step(step)  # pyright: ignore[reportArgumentType]
        assert sorted(set(monitor.frame()["step"])) == [0, 2, 4]

    @pytest.mark.parametrize("loss", [torch.ones(5), {"loss": 1.0}, torch.ones(0)])
    def test_a_loss_that_is_no_number_costs_its_own_row_alone(self, batch, loss):
        monitor = watched(batch)
        with pytest.warns(RuntimeWarning, match="pass one number"):
            monitor.step(2, loss=loss)
        rows = monitor.frame()
        assert len(rows[rows["step"] == 2]) == len(rows[rows["step"] == 0])
        assert "train_loss" not in set(rows["quantity"])

    @pytest.mark.parametrize("stride", [1, 2])
    def test_steps_that_jump_leave_no_updates_and_say_so(self, batch, stride):
        """Unless updates are measured over as many steps."""
        model, config = network(), WatchedConfig(update_window=2, update_stride=stride)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            monitor = Monitor(model, batch, every=6, to=None, optimizer=optimizer, measure=config)
            for step in range(2, 20, 2):
                nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
                optimizer.step()
                monitor.step(step)
        left = [note for note in monitor.notes if "jumped by 2" in note and "update_stride" in note]
        assert ("update" in set(monitor.frame()["object"])) == (stride == 2)
        assert len(left) == len(said) == (stride == 1)

    def test_the_graph_of_the_loss_is_not_kept(self, batch):
        model, (x, y) = network(), batch
        monitor = watched(batch, model)
        monitor.step(1, loss=nn.functional.cross_entropy(model(x), y))
        assert isinstance(monitor._last_loss, Tensor)
        assert monitor._last_loss.grad_fn is None


class TestProbes:
    def test_loaders_without_data_or_without_batches(self, batch):
        empty = TensorDataset(*(tensor[:0] for tensor in batch))
        with pytest.raises(MeasureError, match="data of the probe's loader are empty"):
            watched(DataLoader(empty))
        # Each item of the data is a batch.
        loader = DataLoader([batch, batch], batch_size=None)  # pyright: ignore[reportArgumentType]
        assert losses(watched(loader)) == losses(watched(batch))

    @pytest.mark.parametrize("copied", [False, True])
    def test_models_with_an_encoder_have_the_loss_of_their_labels(self, copied):
        transformers = pytest.importorskip("transformers", reason="models of Hugging Face need the extra hf")
        torch.manual_seed(0)
        sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
        config = transformers.T5Config(vocab_size=32, decoder_start_token_id=0, **sizes)
        model = transformers.T5ForConditionalGeneration(config).eval()
        tokens = torch.randint(2, 30, (4, 5))
        labels = tokens.clone() if copied else torch.randint(2, 30, (4, 5))
        labels[0, 3:] = -100
        probe = Probe({"input_ids": tokens, "labels": labels})
        with torch.no_grad():
            found = probe.losses(model, probe.batch)
            own = [model(input_ids=x[None], labels=y[None]).loss for x, y in zip(tokens, labels, strict=True)]
        torch.testing.assert_close(found, torch.stack(own))

    def test_a_lazy_module_is_named(self, batch):
        with pytest.raises(MeasureError, match=r"0.weight is of a lazy module that has not seen a batch"):
            watched(batch, nn.Sequential(nn.LazyLinear(3)))

    @pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8])
    def test_classes_of_any_integer_type_have_the_same_losses(self, batch, kind):
        x, y = batch
        assert losses(watched((x, y.to(kind)))) == losses(watched(batch))

    def test_targets_beyond_the_logits_are_named(self, batch):
        monitor = watched((batch[0], batch[1] + 2))
        assert any("reach 3, and the model has logits for 0 to 2" in note for note in monitor.notes)
        assert {"activation", "weight"} <= set(monitor.frame()["object"])

    def test_samples_without_targets_have_no_loss_of_zero(self, batch):
        x, y = batch
        monitor = watched((x, torch.where(torch.arange(SAMPLES) < 3, -100, y)))
        assert any("2 of 2 samples of the probe have no target" in note for note in monitor.notes)
        assert losses(monitor) == []

    def test_arrays_are_refused_by_their_kind(self, batch):
        with pytest.raises(MeasureError, match=r"tuple without tensors; pass tensors with.*torch.as_tensor"):
            watched(tuple(part.numpy() for part in batch))

    def test_a_model_that_fails_backward_is_still_measured_forward(self, batch):
        class Detached(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = network()

            def forward(self, x: Tensor) -> Tensor:
                return self.inner(x).detach()

        monitor = watched(batch, Detached())
        assert any(note.startswith("gradients") for note in monitor.notes)
        assert "activation" in set(monitor.frame()["object"])

    def test_each_reason_has_its_own_matrices(self):
        class Both(nn.Module):
            """One layer that is used twice, and one whose weight is used without a call."""

            def __init__(self) -> None:
                super().__init__()
                self.twice, self.never, self.once = (nn.Linear(6, 6) for _ in range(3))

            def forward(self, x: Tensor) -> Tensor:
                return self.once(self.twice(self.twice(x)) @ self.never.weight)

        found = WatchedSubject.of(Both(), Monitor(Both(), _pair(), to=None)._subject.probe)
        assert found.with_gradients == ("once",)
        assert "used 2 times" in found.left_out["gradients of twice"]
        assert "without calling" in found.left_out["gradients of never"]


class TestOptimizers:
    @pytest.mark.parametrize(
        ("make", "momentum"),
        [
            (lambda p: torch.optim.SGD(p, momentum=0.8), 0.8),
            (lambda p: torch.optim.SGD(p, momentum=0.8, nesterov=True), None),
            (lambda p: torch.optim.AdamW(p, betas=(0.7, 0.9)), 0.7),
            (lambda p: torch.optim.NAdam(p), None),
        ],
    )
    def test_steps_that_are_no_moving_average_have_no_p_value(self, batch, make, momentum):
        model = network()
        optimizer = make(list(model.parameters()))
        monitor = watched(batch, model, optimizer=optimizer, measure=WatchedConfig(update_window=2))
        for _ in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
            optimizer.step()
            monitor.step()
        rows = monitor.frame().query("quantity == 'edge_p' and object == 'update'")
        assert list(monitor._updates.momenta.values()) == [momentum]
        assert rows["value"].notna().tolist() == [momentum is not None]
        assert rows["reason"].str.contains("Nesterov").tolist() == [momentum is None]

    def test_a_schedule_of_the_momentum_is_followed(self, batch):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), momentum=0.5)
        monitor = watched(batch, model, optimizer=optimizer, measure=WatchedConfig(update_window=2))
        for momentum in (0.6, 0.7):
            optimizer.param_groups[0]["momentum"] = momentum
            optimizer.step()
            monitor.step()
        assert monitor._updates.momenta == {"sgd": 0.7}

    def test_what_is_no_optimiser_is_refused(self, batch):
        model = network()
        schedule = torch.optim.lr_scheduler.StepLR(torch.optim.SGD(model.parameters()), 1)
        for wrong in (model.parameters(), schedule, list(model.parameters())):
            with pytest.raises(MeasureError, match=r"pass the torch.optim.Optimizer"):
                watched(batch, model, optimizer=wrong)

    def test_an_optimiser_of_another_model_is_told(self, batch):
        other = torch.optim.SGD(network().parameters())
        assert any("holds no weight of this model" in note for note in watched(batch, optimizer=other).notes)

    def test_weights_without_an_optimiser_are_named(self, batch):
        model = network()
        monitor = watched(batch, model, optimizer=torch.optim.SGD(model[2].parameters()))
        assert any("updates of 0.weight, 0.bias left out" in note for note in monitor.notes)


def test_blocks_that_are_compiled_one_by_one_are_measured_as_if_they_were_not():
    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6)) for _ in range(2))
            self.out = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = x + block(x)
            return self.out(x)

    plain, compiled = Blocks(), Blocks()
    for i, block in enumerate(compiled.blocks):
        compiled.blocks[i] = torch.compile(block, backend="eager")  # pyright: ignore[reportArgumentType]
    found = [Monitor(model, _pair(), to=None) for model in (plain, compiled)]
    assert found[0].notes == found[1].notes
    assert found[0].frame().equals(found[1].frame())
    assert "gradient" in set(found[0].frame()["object"])


def _pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(SAMPLES, 6, generator=generator), torch.randn(SAMPLES, 6, generator=generator)
