"""Curves of layers that relax with known times, for the tests of timescales."""

import numpy as np

TIMES = np.concatenate([[0.0], np.geomspace(2, 900, 44)])


def noise_of(generator, shape, memory):
    """First-order noise of unit variance along axis 1."""
    noise = generator.standard_normal(shape)
    for i in range(1, shape[1]):
        noise[:, i] = memory * noise[:, i - 1] + np.sqrt(1 - memory**2) * noise[:, i]
    return noise


def relaxing(
    generator,
    *,
    layers=8,
    seeds=2,
    fast=30.0,
    slow=300.0,
    rise=1.0,
    kappa=0.0,
    spread=0.0,
    noise=0.02,
    memory=0.0,
    times=TIMES,
):
    """Return (seeds, looks, layers): a fall with the fast time and a rise with the slow one, for each layer its own.

    `kappa` is the wave of the fast time, `spread` the sd of its logarithm over layers.
    """
    falls = 1 + 0.5 * generator.random((1, 1, layers)) + 0.05 * generator.random((seeds, 1, layers))
    rises = rise * (0.5 + 0.5 * generator.random((1, 1, layers)))
    own = fast * np.exp(kappa * np.linspace(0, 1, layers) + spread * generator.standard_normal(layers))
    t = times[:, None]
    clean = 3.0 - falls * -np.expm1(-t / own) + rises * -np.expm1(-t / slow)
    return clean + noise * noise_of(generator, clean.shape, memory)
