"""Rényi divergences of the Gaussian mechanism, by binomial sums alone.

Adjacency: add or remove one unit. With a sample the divergence of integer order a is
log(sum over k of C(a, k) q^k (1 - q)^(a - k) exp((k^2 - k) / (2 s^2))) / (a - 1), and
the binomial weights sum to 1; so it is log(1 + sum over k >= 2 of the same with
exp(...) - 1 for exp(...)), where every term is positive and none is lost to rounding.
Source: Mironov, Talwar and Zhang 2019, section 3.3. This module knows no budget.
"""

from __future__ import annotations

import math

ORDERS = (6, 8, 10, 12, 16, 24, 32, 64)


def divergence(
    order: int, noise_multiplier: float, sample_rate: float, kind: str
) -> float:
    """Divergence of one step of any kind, in nats; the others are never sampled.

    A discrete Gaussian has the Gaussian's at whole orders, exactly (Canonne, Kamath and
    Steinke 2020).
    """
    if kind == "laplace":
        return laplace(order, noise_multiplier)
    return gaussian(order, noise_multiplier, sample_rate)


def laplace(order: int, scale: float) -> float:
    """Of a count with Laplace noise. Source: Mironov 2017, proposition 6."""
    rising = math.log(order / (2 * order - 1)) + (order - 1) / scale
    falling = math.log((order - 1) / (2 * order - 1)) - order / scale
    largest = max(rising, falling)
    log_sum = math.log(math.exp(rising - largest) + math.exp(falling - largest))
    return (largest + log_sum) / (order - 1)


def gaussian(order: int, noise_multiplier: float, sample_rate: float) -> float:
    """Divergence of one step, in nats.

    Args:
        order: A whole number above 1.
        noise_multiplier: Standard deviation over sensitivity; above 0.
        sample_rate: Of the Poisson sample, in (0, 1]; 1 is no sampling.

    Returns:
        Exact up to a few units of the last place.
    """
    if sample_rate == 1:
        return order / (2 * noise_multiplier**2)
    terms = [
        _term(order, k, noise_multiplier, sample_rate) for k in range(2, order + 1)
    ]
    largest = max(terms)
    log_sum = largest + math.log(sum(math.exp(term - largest) for term in terms))
    return _log_of_1_plus_exp(log_sum) / (order - 1)


def _term(order: int, k: int, noise_multiplier: float, sample_rate: float) -> float:
    """Logarithm of C(a, k) q^k (1 - q)^(a - k) (exp((k^2 - k) / (2 s^2)) - 1)."""
    weight = math.log(math.comb(order, k)) + k * math.log(sample_rate)
    weight += (order - k) * math.log1p(-sample_rate)
    exponent = (k * k - k) / (2 * noise_multiplier**2)
    if exponent < 1:
        return weight + math.log(math.expm1(exponent))
    return weight + exponent + math.log1p(-math.exp(-exponent))


def _log_of_1_plus_exp(x: float) -> float:
    return x + math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x))
