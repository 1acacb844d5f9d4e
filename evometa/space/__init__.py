"""What may be proposed? Spaces are plain values; their points, genomes, are plain data.

`Int, Float, Choice, List, Struct` nest at will. Every space can sample, validate, mutate and cross
genomes over, and what it makes is valid by construction.
"""

from evometa.space.choice import Choice
from evometa.space.numeric import Float, Int
from evometa.space.paths import gene_value, get, replace
from evometa.space.protocol import Space
from evometa.space.sequence import List
from evometa.space.struct import Struct
from evometa.space.vector import decode, encode, numeric, structure

__all__ = [
    "Choice",
    "Float",
    "Int",
    "List",
    "Space",
    "Struct",
    "decode",
    "encode",
    "gene_value",
    "get",
    "numeric",
    "replace",
    "structure",
]
