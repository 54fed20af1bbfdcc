"""Parameters of K members together with the optimisers that their stage routes them to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from toymodel.compiled import compiled, update_errors
from toymodel.config import NewtonSchulz
from toymodel.controllers import Controller
from toymodel.errors import CheckpointError, ConfigError
from toymodel.intervention import NONE, Intervention
from toymodel.interventions import Interventions
from toymodel.network import Network
from toymodel.observe import View
from toymodel.optim import AdamW, Muon, Share, alone
from toymodel.parameters import ParameterBank, initial_value
from toymodel.transformer import matrix_places

State = dict[str, Tensor]

MULTIPLIER = "multiplier/"
CONTROLLER = "controller/"
INTERVENTION = "intervention/"


class Trainable:
    """Hold the parameters and optimiser state of K members, which is all that a step changes.

    Args:
        transformer: gives the parameters, and by its stage the optimiser of each.
        lr: (K,) base learning rates.
        weight_decay: decoupled decay of the AdamW roles, one for each member; None takes the default of the stage.
        arithmetic: of Muon's orthogonalisation.
        device: of all tensors.
        share: orthogonalises a batch of matrices (see `Muon`).
        controllers: one for each member, or none at all (see `toymodel.controllers.Controller`).
        beta2: decay of AdamW's second moment; None takes that of the stage.
        clip: largest norm of a member's gradient over all its parameters (see `clipped`); None for none.
        interventions: one for each member, with the seed of its run; or none at all.

    Attributes:
        params: (K, *shape) tensors by name, which require gradients; all zero until they are loaded.
    """

    def __init__(
        self,
        transformer: Network,
        lr: Tensor,
        weight_decay: list[float | None],
        arithmetic: NewtonSchulz,
        device: torch.device | str = "cpu",
        share: Share = alone,
        controllers: Sequence[Controller] = (),
        beta2: float | None = None,
        clip: float | None = None,
        interventions: Sequence[tuple[Intervention, int]] = (),
    ) -> None:
        routing, specs, members = transformer.stage.routing, transformer.specs(), len(lr)
        self.lr = lr.to(device)
        self.muon_lr_ratio = routing.muon_lr_ratio
        self.clip = clip
        decays = [routing.weight_decay if d is None else d for d in weight_decay]
        decay = self._decay = (
            torch.tensor(decays, dtype=self.lr.dtype, device=device) if any(decays) else None
        )
        self.adamw_bank = ParameterBank([s for s in specs if s.role not in routing.muon], members, device)
        self.muon_bank = ParameterBank([s for s in specs if s.role in routing.muon], members, device)
        self.banks = (self.adamw_bank, self.muon_bank)
        self.params = {**self.adamw_bank.params, **self.muon_bank.params}
        self.controllers = list(controllers)
        self.places = matrix_places(specs)
        # (K, M) for a parameter of M stacked matrices; (K, 1) for one matrix or a vector of scalars, which stay at 1.
        self.multipliers = {
            s.name: torch.ones(members, math.prod(s.shape[:-2]), device=device) for s in specs
        }
        adamw_lr, muon_lr = self._rates()
        self.adamw = AdamW(
            self.adamw_bank.vector,
            adamw_lr,
            None if decay is None else self._decays(decay),
            routing.betas if beta2 is None else (routing.betas[0], beta2),
            routing.eps,
        )
        self._update_adamw = self.adamw.update
        offsets = self.muon_bank.offsets
        blocks = [
            (slice(offsets[s.name], offsets[s.name] + members * s.size), (members, *s.shape))
            for s in self.muon_bank.specs
        ]
        self.muon = Muon(
            self.muon_bank.vector,
            blocks,
            muon_lr,
            routing.momentum,
            routing.newton_schulz_steps,
            arithmetic,
            share,
        )
        intervened = any(settings != NONE for settings, _ in interventions)
        self.interventions = Interventions(self, interventions) if intervened else None

    def _decays(self, decay: Tensor) -> Tensor:
        """Return the weight decay (K,) of each member at every entry, 0 at parameters that do not decay."""
        bank = self.adamw_bank
        if all(s.decays for s in bank.specs):
            return bank.per_member(decay)
        return bank.per_matrix({s.name: (decay if s.decays else 0.0 * decay).view(-1, 1) for s in bank.specs})

    def _rates(self) -> tuple[Tensor, Tensor | list[Tensor]]:
        """Return the learning rates of AdamW and of Muon: one for each member, or for each matrix if controlled."""
        if not self.controllers:
            return self.adamw_bank.per_member(self.lr), self.muon_lr_ratio * self.lr
        rates = {name: self.lr.view(-1, 1) * m for name, m in self.multipliers.items()}
        muon = [self.muon_lr_ratio * rates[s.name] for s in self.muon_bank.specs]
        return self.adamw_bank.per_matrix(rates), muon

    def control(self, step: int, view: Callable[[int], View]) -> None:
        """Ask the controllers that are due for the multipliers of the following updates.

        A member whose weights are no longer finite keeps its multipliers: it leaves at the next evaluation.

        Args:
            step: number of updates so far.
            view: shows a member to its controller.

        Raises:
            ConfigError: a multiplier of an unknown matrix, or one that is no finite number ≥ 0.
        """
        changed = False
        for k, controller in enumerate(self.controllers):
            if controller.due(step) and self._finite(k):
                for name, value in controller.choose(view(k)).items():
                    self._set_multiplier(controller.name, k, name, value)
                changed = True
        if changed:
            self._apply_multipliers()

    def _finite(self, k: int) -> bool:
        return all(bool(p.detach()[k].isfinite().all()) for p in self.params.values())

    def _set_multiplier(self, controller: str, k: int, name: str, value: float) -> None:
        if name not in self.places:
            raise ConfigError(
                f"controller {controller} chose a multiplier for {name!r}, which is no matrix of the model; the "
                f"matrices are {', '.join(self.places)}"
            )
        if not 0 <= value < math.inf:
            raise ConfigError(
                f"controller {controller} chose the multiplier {value} for {name}; it must be a finite number ≥ 0"
            )
        parameter, index = self.places[name]
        self.multipliers[parameter][k, index] = value

    def _apply_multipliers(self) -> None:
        adamw, muon = self._rates()
        self.adamw.set_lr(adamw)
        self.muon.set_lr(list(muon))

    def scale_decay(self, factors: Sequence[float]) -> None:
        """Multiply the configured weight decay of each member by a factor, for the following updates."""
        if self._decay is not None:
            scaled = self._decay * torch.tensor(factors, dtype=self._decay.dtype, device=self._decay.device)
            self.adamw.set_weight_decay(self._decays(scaled))

    def initialise(self, seeds: Sequence[int]) -> None:
        """Give each member the parameters that belong to its seed."""
        for bank in self.banks:
            bank.load([{s.name: initial_value(s, seed) for s in bank.specs} for seed in seeds])

    def flatten(self, grads: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return gradients (K, *shape) by name as the two vectors that `step` takes."""
        adamw, muon = (bank.flatten(grads[s.name] for s in bank.specs) for bank in self.banks)
        return adamw, muon

    def step(self, grads: tuple[Tensor, Tensor], t: int, scale: float = 1.0) -> None:
        """Apply one update.

        Args:
            grads: vectors in the layouts of the AdamW and the Muon bank.
            t: counts updates from 1.
            scale: of all learning rates in this update.
        """
        self.update(grads, *self.adamw.corrections(t, scale), scale)

    def update(
        self,
        grads: tuple[Tensor, Tensor],
        root: float | Tensor,
        factor: float | Tensor,
        scale: float = 1.0,
    ) -> None:
        """Apply one update, given the `corrections` of AdamW as numbers or as tensors () of the same values."""
        if self.clip is not None:
            grads = self.clipped(grads, self.clip)
        self._update_adamw(grads[0], root, factor, scale)
        if self.muon_bank.specs:
            self.muon.step(grads[1], scale)

    def clipped(self, grads: tuple[Tensor, Tensor], clip: float) -> tuple[Tensor, Tensor]:
        """Return gradients scaled by min(1, clip / (norm + 1e−6)), the norm being a member's over all parameters.

        This is the rule of torch.nn.utils.clip_grad_norm_, member by member and without a number on the host.
        """
        square = grads[0].new_zeros(len(self.lr))
        for bank, vector in zip(self.banks, grads, strict=True):
            for spec in bank.specs:
                # Rows of one length are summed alike, however many there are.
                square = square + bank.block(vector, spec.name).reshape(len(square), -1).square().sum(dim=1)
        factor = (clip / (square.sqrt() + 1e-6)).clamp(max=1.0)
        adamw, muon = (
            v * bank.per_member(factor) if bank.specs else v
            for bank, v in zip(self.banks, grads, strict=True)
        )
        return adamw, muon

    def rates_of(self, k: int) -> Mapping[str, tuple[float, float | None]]:
        """Return multiplier and score of each matrix of member k (see `MemberView.rates` of an ensemble)."""
        return self.controllers[k].rated if self.controllers else {}

    def decay_of(self, k: int, scale: float = 1.0) -> dict[str, Tensor]:
        """Return by name the share of each decayed parameter of member k that an update takes away by weight decay.

        Shares are float64, () or of the shape of the parameter: 1 minus the factor in float32 that the update applies.
        Parameters of Muon have no decay and no entry.

        Args:
            k: the member.
            scale: of all learning rates in that update.
        """
        decay = self.adamw.decay
        if decay is None:
            return {}
        shares = 1.0 - torch.rsub(decay, 1, alpha=scale).double()
        bank = self.adamw_bank
        return {s.name: shares if shares.ndim == 0 else bank.block(shares, s.name)[k] for s in bank.specs}

    def compile(self) -> None:
        """Have AdamW's updates done by compiled code."""
        self._update_adamw = compiled(self.adamw.update)

    def adamw_errors(self, root: Tensor, factor: Tensor) -> dict[str, float]:
        """Return the relative errors of AdamW's compiled update by random gradients (see `update_errors`)."""
        state = (self.adamw.theta, self.adamw.first, self.adamw.second)
        generator = torch.Generator(self.adamw.theta.device).manual_seed(0)
        grad = torch.empty_like(self.adamw.theta).normal_(0.0, 1e-3, generator=generator)
        return update_errors(state, lambda: self._update_adamw(grad, root, factor))

    def weights(self, members: Sequence[int]) -> list[State]:
        """Return copies of the parameters (*shape) of members by name, on the CPU."""
        found: list[State] = [{} for _ in members]
        for bank in self.banks:
            for weights, tensors in zip(found, bank.members_of(members), strict=True):
                weights.update(tensors)
        return found

    def _vectors(self) -> tuple[tuple[str, ParameterBank, Tensor], ...]:
        return (
            ("param", self.adamw_bank, self.adamw_bank.vector),
            ("adamw.first", self.adamw_bank, self.adamw.first),
            ("adamw.second", self.adamw_bank, self.adamw.second),
            ("param", self.muon_bank, self.muon_bank.vector),
            ("muon.buffer", self.muon_bank, self.muon.buffer),
        )

    def states(self, members: Sequence[int]) -> list[State]:
        """Return copies of all that members need to continue, on the CPU, in one copy a vector of the device.

        Parameters and optimiser state have keys "kind/name". With a controller also the multiplier () of each matrix,
        and what the controller keeps; with an intervention what it keeps.
        """
        found: list[State] = [{} for _ in members]
        for kind, bank, vector in self._vectors():
            for state, tensors in zip(found, bank.members_of(members, vector), strict=True):
                state.update({f"{kind}/{name}": value for name, value in tensors.items()})
        for k, state in zip(members, found, strict=True):
            if self.controllers:
                self._add_control(k, state)
            if self.interventions is not None:
                kept = self.interventions.state_of(k)
                state.update({f"{INTERVENTION}{name}": value for name, value in kept.items()})
        return found

    def _add_control(self, k: int, state: State) -> None:
        for name, (parameter, index) in self.places.items():
            state[f"{MULTIPLIER}{name}"] = self.multipliers[parameter][k, index].to("cpu", copy=True)
        for name, value in self.controllers[k].state_dict().items():
            state[f"{CONTROLLER}{name}"] = value.to("cpu", copy=True)

    def check(self, state: Mapping[str, Tensor], run_id: str) -> None:
        """Refuse a state that is not of these parameters and optimisers.

        Raises:
            CheckpointError: naming the run and the tensors that are missing, foreign or of another shape.
        """
        expected = {f"{kind}/{s.name}": s.shape for kind, bank, _ in self._vectors() for s in bank.specs}
        found = {key: tuple(value.shape) for key, value in state.items()}
        if self.controllers:
            expected.update({f"{MULTIPLIER}{name}": () for name in self.places})
            # The names and shapes of what a controller keeps are known to the controller only.
            found = {key: shape for key, shape in found.items() if not key.startswith(CONTROLLER)}
        if self.interventions is not None:
            # As are those of what an intervention keeps.
            found = {key: shape for key, shape in found.items() if not key.startswith(INTERVENTION)}
        if found != expected:
            wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
            raise CheckpointError(
                f"the state of {run_id} does not fit its configuration: {', '.join(wrong[:4])} missing, foreign or of "
                "another shape; delete the run folder to train it again"
            )

    def restore(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Give all members what `states` returned."""
        for kind, bank, vector in self._vectors():
            bank.load([{s.name: state[f"{kind}/{s.name}"] for s in bank.specs} for state in states], vector)
        if self.interventions is not None:
            for k, state in enumerate(states):
                self.interventions.restore(k, _under(state, INTERVENTION))
        if not self.controllers:
            return
        for k, (controller, state) in enumerate(zip(self.controllers, states, strict=True)):
            for name, (parameter, index) in self.places.items():
                self.multipliers[parameter][k, index] = state[f"{MULTIPLIER}{name}"]
            controller.load_state_dict(_under(state, CONTROLLER))
        self._apply_multipliers()


def _under(state: Mapping[str, Tensor], prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
