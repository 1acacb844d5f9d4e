"""Published optimisers as updates."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from evometa.rule.gradient import DESCENT

_LION = ["add", "mul", 0.9, "before", 0.99, "gradient", "mul", 0.1, "gradient"]
_ADAM = ["div", "unbiased", 0.9, "gradient"]
_ADAM += ["add", "sqrt", "unbiased", 0.999, "square", "gradient", 1e-8]
_AGREE = ["mul", "sign", "gradient", "sign", "average", 0.9, "gradient"]

KNOWN: Mapping[str, list[Any]] = MappingProxyType(
    {
        # Robbins and Monro, 1951
        "sgd": [*DESCENT],
        # Polyak, 1964, as torch.optim.SGD writes it
        "momentum": ["mul", "rate", "trace", 0.9, "gradient"],
        # Nesterov, 1983, as torch.optim.SGD writes it
        "nesterov": ["mul", "rate", "add", "gradient", "mul", 0.9, "trace", 0.9, "gradient"],
        # Hinton's lecture 6e, 2012
        "rmsprop": [
            *["mul", "rate", "div", "gradient"],
            *["add", "sqrt", "average", 0.99, "square", "gradient", 1e-8],
        ],
        # Kingma and Ba, 2015
        "adam": ["mul", "rate", *_ADAM],
        # Loshchilov and Hutter, 2019
        "adamw": ["mul", "rate", "add", "mul", 0.01, "parameter", *_ADAM],
        # Chen et al., 2023
        "lion": ["mul", "rate", "sign", *_LION],
        # Bello et al., 2017
        "powersign": ["mul", "rate", "mul", "exp", *_AGREE, "gradient"],
        "addsign": ["mul", "rate", "mul", "add", 1.0, *_AGREE, "gradient"],
        # decoupled weight decay: Loshchilov and Hutter, 2019
        "weight-decay": ["mul", "rate", "add", "gradient", "mul", 0.01, "parameter"],
        # iMAML's regulariser: Rajeswaran et al., 2019
        "proximal": ["mul", "rate", "add", "gradient", "mul", 0.1, "sub", "parameter", "initial"],
    }
)
"""Name to the tokens of what is subtracted from the parameters at each step."""
