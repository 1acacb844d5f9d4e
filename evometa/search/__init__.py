"""What is tried next? Searchers propose candidates and are told of evaluations.

A `Strategy` is the algorithm alone; `AskTell` numbers, seeds and checks what it proposes.
`make_searcher` puts the two together by name, and loads DEAP or Optuna only for who needs them.
"""

from evometa.search.ask_tell import AskTell
from evometa.search.halving import RungRole, SuccessiveHalving
from evometa.search.protocol import Proposal, Searcher, Strategy
from evometa.search.registry import SEARCHERS, Wishes, make_searcher

__all__ = [
    "SEARCHERS",
    "AskTell",
    "Proposal",
    "RungRole",
    "Searcher",
    "Strategy",
    "SuccessiveHalving",
    "Wishes",
    "make_searcher",
]
