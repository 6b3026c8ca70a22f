"""Words that turn a finding into its opposite or put it on the other side, and titles: never masked or written."""

from __future__ import annotations

from typing import Final

__all__ = ["POLARITY"]

_ENGLISH: Final = """
dr mr mrs ms miss prof
no not nor non none never without absent absence denies denied deny denying denial negative negatives neg negated free
lacks lacking lack rules ruled rule unremarkable unlikely excluded exclude excludes
cannot isn aren wasn weren doesn don didn
hasn haven hadn positive present unable neither resolved
left right bilateral bilaterally unilateral leftward rightward both medial lateral
anterior posterior proximal distal upper
lower superior inferior
"""
_SPANISH: Final = """
dra sr sra srta
no ni sin nunca niega niegan negado ausente ausencia negativo negativa negativos negativas
descarta descartado descartada
ningún ninguno ninguna tampoco positivo positiva presente resuelto
izquierdo izquierda derecho derecha bilateral unilateral ambos ambas superior inferior anterior posterior lateral medial
"""

POLARITY: Final = frozenset((_ENGLISH + _SPANISH).split())
"""Folded but for accents; English and Spanish together, since notes mix them."""
