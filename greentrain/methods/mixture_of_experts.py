"""A layer of experts, of which a router chooses a few for each sample."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import one_hot

from greentrain.errors import ConfigurationError
from greentrain.methods.auxiliary_loss import AuxiliaryLoss


class MixtureOfExperts(AuxiliaryLoss):
    """Perceptrons with one hidden layer, of which each sample uses ``top_k``.

    Sparsely-gated experts (Shazeer et al. 2017, arXiv 1701.06538): the outputs of the chosen
    experts, weighted by the router's probabilities. With several choices, the weights sum to 1.

    The loss is that of the Switch Transformer (Fedus et al. 2021, arXiv 2101.03961, equations 4 to
    6): ``experts * sum(f_i * P_i)``. ``f_i`` is the share of the choices that fall on expert ``i``,
    and ``P_i`` its mean probability. It is 1 if the load is balanced, and at most ``experts``. Add
    it with :func:`auxiliary_loss`, weighted by 0.01.

    Inputs and outputs are ``(..., features)``. Each vector is a sample, such as a token.

    Args:
        features: Size of the last dimension of inputs and outputs.
        hidden: Hidden units of each expert.
        experts: Number of experts, 2 or more.
        top_k: Experts for each sample, at most ``experts``.

    Attributes:
        load: Share of the choices of the last forward pass that fell on each expert.

    Raises:
        ConfigurationError: If an argument cannot be used.

    Example:
        >>> layer = MixtureOfExperts(8, 16, experts=4)
        >>> layer(torch.randn(2, 5, 8)).shape
        torch.Size([2, 5, 8])
        >>> 0 < layer.take_loss().item() <= 4
        True
    """

    def __init__(self, features: int, hidden: int, *, experts: int = 4, top_k: int = 1) -> None:
        super().__init__()
        if experts < 2:
            raise ConfigurationError(f"experts is {experts!r}; it must be 2 or more")
        if not 1 <= top_k <= experts:
            raise ConfigurationError(f"top_k is {top_k!r}; it must be from 1 to {experts}")
        if features < 1 or hidden < 1:
            raise ConfigurationError(f"features and hidden are {features} and {hidden}; 1 or more")
        self.features, self.top_k = features, top_k
        self.router = nn.Linear(features, experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, features))
            for _ in range(experts)
        )
        self.load: tuple[float, ...] = ()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the weighted outputs of the chosen experts, ``(..., features)``."""
        flat = inputs.reshape(-1, self.features)
        probabilities = self.router(flat).float().softmax(1)  # float, as in the Switch Transformer
        weights, chosen = probabilities.topk(self.top_k, dim=1)
        if self.top_k > 1:
            weights = weights / weights.sum(1, keepdim=True)
        outputs = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            rows, places = (chosen == number).nonzero(as_tuple=True)
            # In training an expert without samples runs on none: its gradient is 0, not missing,
            # and processes of one training wait for no gradient.
            if len(rows) or self.training:
                weighted = weights[rows, places, None] * expert(flat[rows])
                outputs = outputs.index_add(0, rows, weighted.to(outputs.dtype))
        shares = one_hot(chosen, len(self.experts)).float().mean((0, 1))
        self.load = tuple(shares.tolist())
        if self.training:
            self._loss = len(self.experts) * (shares * probabilities.mean(0)).sum()
        return outputs.reshape(inputs.shape)
