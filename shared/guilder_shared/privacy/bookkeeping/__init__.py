"""Book-keeping clipping: private gradients at the price of gradients.

One forward, one backward that computes no parameter gradients, then each layer gives
the norm of every unit's gradient and one weighted sum. This room draws no batch and
counts no epsilon. Its modules import torch: import them lazily.

Source: Bu, Wang, Zha and Karypis 2023, "Differentially private optimization on large
model at small cost".
"""
