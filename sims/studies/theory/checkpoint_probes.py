"""Measure one checkpoint for the claims: head bounds, modes of the next-token rule, positions, start, direct path.

Every function returns plain records (one a row of a table of `sims.studies.theory.checkpoint_tables.CheckpointTables`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sims.measure.band_states import Probe
from sims.models.transformer import TransformerSubject
from sims.training.rates import layerwise
from spectra import band_energies, class_means, h_s, task_band, top_k_band
from theory.formulas import fourier
from toymodel import Ensemble, RunConfig
from toymodel.cross_entropy import softcap
from toymodel.data import Dataset
from toymodel.tasks.modular_walks import modular_walks

Record = dict[str, Any]

# Pairs of the set chosen from the data; the bound of T2 holds for every set.
TOP = 3
INITIALISATIONS = 64
# Sequences behind the loss and the gradient at step 0.
START_SEQUENCES = 256
# Early positions matter most (a step is known from the second token on); later ones thin out.
POSITIONS = (0, 1, 2, 3, 7, 15, 31, 63)


def final_states(subject: TransformerSubject, tokens: Tensor) -> Tensor:
    """Return the (n, T, d) final states, which the head reads."""
    return torch.cat([a["final"] for a in subject.activations(tokens, ("final",))])


def head_bounds(probe: Probe, last: Tensor) -> list[Record]:
    """Compute both sides of the inequalities T2 and T7 for the class means of the last position, states weighted 1/c.

    Returns:
        One record a set S: band, set, h_s, head (share of the first |S| eigenvalues of Σ_B), bound and total_head
        (of Σ = Σ_B + Σ_W), rankme and entropy (RankMe of Σ_B and its bound), and trace (tr Σ + ‖h̄‖², divisor n,
        over the width). Empty where the states of the band all look the same.
    """
    c = probe.split.modulus
    h = last.double().numpy()
    states = np.asarray(probe.split.states[:, -1])
    means = class_means(h, states, c).means
    centred = means - means.mean(axis=0)
    if np.abs(centred).max() <= 1e-9 * np.abs(h).max():
        return []
    between = np.linalg.svd(centred, compute_uv=False) ** 2 / c
    residual = (h - means[states]) / np.sqrt(c * np.bincount(states, minlength=c)[states])[:, None]
    total = np.linalg.eigvalsh(centred.T @ centred / c + residual.T @ residual)[::-1]
    trace = float((h.var(axis=0).sum() + (h.mean(axis=0) ** 2).sum()) / h.shape[1])
    common = {
        "band": probe.name,
        "rankme": fourier.exp_entropy(between),
        "entropy": fourier.exp_entropy(band_energies(means)[1:]),
        "trace": trace,
    }
    sets = {"task": task_band(c)} if len(task_band(c)) < c - 1 else {}
    if c // 2 > TOP:
        sets["top3"] = top_k_band(means, TOP)
    return [
        {
            **common,
            "set": name,
            "h_s": h_s(means, chosen),
            "head": float(between[: len(chosen)].sum() / between.sum()),
            "bound": fourier.total_head_bound(h_s(means, chosen), between.sum(), total.sum()),
            "total_head": float(total[: len(chosen)].sum() / total.sum()),
        }
        for name, chosen in sets.items()
    ]


def mode_amplitudes(
    subject: TransformerSubject, probe: Probe, last: Tensor, start_means: np.ndarray | None
) -> list[Record]:
    """Compute two amplitudes (T9) of each mode r = 1..⌊c/2⌋ at the last position.

    amplitude is a_r = Re mean_i Σ_ŷ p_i(ŷ) e^{2πi r(ŷ − y_i)/c}, p_i the model's distribution over the whole
    vocabulary; tokens outside the band count as 0. A uniform p gives 0 and a certain, right one gives 1 in every
    mode. moved is √E_r of the change of the class means since step 0 (NaN where those are not given).
    """
    c, o = probe.split.modulus, probe.split.offset
    logits = softcap(last @ subject.head.T, subject.transformer.stage.softcap)
    inside = torch.softmax(logits.double(), dim=-1)[:, o : o + c].numpy()
    target = probe.tokens[:, -1].cpu().numpy().astype(int) - o
    # Row i is rotated by y_i, so that the right answer is at index 0.
    turned = inside[np.arange(len(inside))[:, None], (np.arange(c)[None, :] + target[:, None]) % c]
    amplitude = np.fft.fft(turned.mean(axis=0)).real
    moved = np.full(c, np.nan)
    if start_means is not None:
        moved = np.sqrt(band_energies(state_means(probe, last) - start_means))
    return [
        {"band": probe.name, "r": r, "amplitude": float(amplitude[r]), "moved": float(moved[r])}
        for r in range(1, c // 2 + 1)
    ]


def state_means(probe: Probe, last: Tensor) -> np.ndarray:
    """Return the (c, d) class means of the final states at the last position."""
    return class_means(last, probe.split.states[:, -1], probe.split.modulus).means


def initial_concentration(config: RunConfig, probes: Sequence[Probe]) -> list[Record]:
    """Compute H_S (task; T3) of 64 untrained models of a configuration, seeds 0..63, every state seen once.

    The walks have step 1; before training a final state depends on its token and position only.

    Returns:
        One record a seed and band of odd modulus above 15: seed, band, c, d and h_s.
    """
    records = []
    for seed in range(INITIALISATIONS):
        own = replace(config, seed=seed)
        subject = TransformerSubject.of_weights(own, Ensemble([own], controller=layerwise).weights(0), 0)
        for probe in probes:
            c = probe.split.modulus
            if c % 2 == 0 or len(task_band(c)) >= c - 1:
                continue
            length = probe.tokens.shape[1]
            walk = (np.arange(c)[:, None] + np.arange(length)[None, :] - (length - 2)) % c
            states = final_states(subject, torch.tensor(probe.split.offset + walk))[:, -1]
            value = h_s(states, task_band(c))
            records.append({"seed": seed, "band": probe.name, "c": c, "d": states.shape[1], "h_s": value})
    return records


def positions(subject: TransformerSubject, probe: Probe) -> list[Record]:
    """Compute H_S (task; T11, N2) by position, by state and at fixed step, and the loss there.

    The walks are all starts a for all steps d of the band, so that every state is visited once a step and neither
    quantity carries sampling noise (which would grow along the sequence, as states of one class spread, and shrink
    H_S toward its null). All steps: the mean over some of them at equal distances has a kernel that is large where they
    are in phase (at c = 97, 24 of 85 steps leave 4 % of its power in the task band, in place of 89 %).

    Returns:
        One record a position: band, seen, c, position, by_state (class means over the steps), given_step (energies at
        one step, averaged over steps), null, loss. Empty for a composite modulus, whose steps have structure of
        their own, and where the task band holds every frequency.
    """
    c, o, length = probe.split.modulus, probe.split.offset, probe.tokens.shape[1] - 1
    chosen = list(task_band(c))
    if len(chosen) >= c - 1 or any(c % k == 0 for k in range(2, int(c**0.5) + 1)):
        return []
    places = sorted({p for p in POSITIONS if p < length} | {length - 1})
    assert isinstance(subject.config, RunConfig)
    steps = range(max(1, math.floor(c * modular_walks(subject.config.task).step_fraction)), c)
    energies, means = np.zeros((len(places), c)), np.zeros((len(places), c, subject.head.shape[1]))
    losses = np.zeros(length)
    for step in steps:
        walk = (np.arange(c)[:, None] + step * np.arange(length + 1)[None, :]) % c
        tokens = torch.tensor(o + walk)
        h = final_states(subject, tokens)
        losses += _losses(subject, h, tokens) / len(steps)
        for i, place in enumerate(places):
            by_state = np.empty((c, h.shape[2]))
            by_state[walk[:, place]] = h[:, place].double().numpy()
            energies[i] += band_energies(by_state) / len(steps)
            means[i] += by_state / len(steps)
    return [
        {
            "band": probe.name,
            "seen": probe.known > 0,
            "c": c,
            "position": place,
            "by_state": h_s(means[i], chosen),
            "given_step": float(energies[i, chosen].sum() / energies[i].sum()),
            "null": len(chosen) / (c - 1),
            "loss": float(losses[place]),
        }
        for i, place in enumerate(places)
    ]


def _losses(subject: TransformerSubject, states: Tensor, tokens: Tensor) -> np.ndarray:
    n, length, width = states.shape
    each = subject.head_losses(states.reshape(n * length, width), tokens[:, 1:].reshape(-1))
    return each.view(n, length).mean(dim=0).double().numpy()


def start(subject: TransformerSubject, sequences: Tensor) -> Record:
    """Compute T10(b) at step 0: mean loss, its scatter over random tied embeddings, and what has a gradient.

    The scatter is the standard deviation over embeddings of Σ_xy f(x,y)(√d‖w_x‖ − l_xy), f the frequencies of the
    pairs: √d‖w_x‖ has variance d/2, and l_xy ~ N(0, d) for x ≠ y is l_yx but for the norms, both being w_x·w_y.
    """
    sequences = sequences[:START_SEQUENCES]
    params = {name: p.detach().clone().requires_grad_() for name, p in subject.params.items()}
    loss = subject.transformer.losses(params, sequences[None].long()).sum()
    grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    moved = [n for n, g in zip(params, grads, strict=True) if g is not None and bool(g.abs().max() > 0)]
    vocab, width = subject.head.shape
    pairs = np.zeros((vocab, vocab))
    seen = sequences.cpu().numpy().astype(int)
    np.add.at(pairs, (seen[:, :-1].ravel(), seen[:, 1:].ravel()), 1)
    f = pairs / pairs.sum()
    both_ways = np.triu(f + f.T, 1)
    scatter = np.sqrt(width * (both_ways**2).sum() + width / 2 * (f.sum(axis=1) ** 2).sum())
    return {
        "loss": float(loss.detach()),
        "scatter": float(scatter),
        "moved": " ".join(moved),
        "V": vocab,
        "d": width,
    }


def bigram(data: Dataset, vocab: int) -> np.ndarray:
    """Return the counted (V, V) P(y|x) of the training split; rows of tokens that never occur are 0."""
    pairs = np.zeros((vocab, vocab))
    inputs, targets = (np.asarray(x).ravel().astype(int) for x in (data.train.inputs, data.train.targets))
    np.add.at(pairs, (inputs, targets), 1)
    return pairs / np.maximum(pairs.sum(axis=1, keepdims=True), 1)


def direct_path(subject: TransformerSubject, table: np.ndarray) -> Record:
    """Measure how far the direct path's logits L = E W_headᵀ follow the antisymmetric part of the bigrams (N1).

    E is the embedding, RMS-normalised where the stage does so. A stage's bound on its logits is left off: the statement
    is about the bilinear form, and the bound is odd and monotone, so that it changes no sign and makes a symmetric L no
    less so.

    Returns:
        asymmetry (‖L − Lᵀ‖/‖2L‖, 0 for a symmetric L) and follows (the correlation ρ; NaN for a symmetric L).
    """
    embedding = subject.matrices["embed"].double()
    if subject.transformer.stage.embedding_norm:
        embedding = embedding / embedding.square().mean(dim=1, keepdim=True).sqrt()
    logits = (embedding @ subject.head.double().T).numpy()
    odd, wanted = logits - logits.T, table - table.T
    asymmetry = float(np.linalg.norm(odd) / max(2 * np.linalg.norm(logits), 1e-300))
    scale = np.linalg.norm(odd) * np.linalg.norm(wanted)
    follows = float((odd * wanted).sum() / scale) if asymmetry > 1e-9 and scale > 0 else float("nan")
    return {"asymmetry": asymmetry, "follows": follows}
