"""What may be proposed? Spaces are plain immutable values; their points, genomes, are plain data.

`Int, Float, Choice, List, Struct, Tree` nest at will, as does anything that follows `Space`. Every
space samples, mutates and crosses genomes over, and all that it makes lies inside it.
"""

from evometa.space.choice import Choice
from evometa.space.expression import Primitive
from evometa.space.numeric import Float, Int
from evometa.space.paths import gene_value, get, replace
from evometa.space.protocol import Leaf, Numeric, Space
from evometa.space.sequence import List
from evometa.space.struct import Struct
from evometa.space.tree import Tree
from evometa.space.vector import decode, encode, structure
from evometa.space.walk import trees

__all__ = [
    "Choice",
    "Float",
    "Int",
    "Leaf",
    "List",
    "Numeric",
    "Primitive",
    "Space",
    "Struct",
    "Tree",
    "decode",
    "encode",
    "gene_value",
    "get",
    "replace",
    "structure",
    "trees",
]
