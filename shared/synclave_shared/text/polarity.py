"""Words that turn a finding or a value into its opposite or put it on the other side, and titles.

Rewriting never masks one and never writes one.
"""

from __future__ import annotations

from typing import Final

__all__ = ["POLARITY"]

_ENGLISH: Final = """
dr mr mrs ms miss prof
no not nor non none never without absent absence denies denied deny denying denial negative negatives neg negated free
lacks lacking lack rules ruled rule unremarkable unlikely excluded exclude excludes
cannot isn aren wasn weren doesn don didn
hasn haven hadn positive present unable neither resolved
nothing nobody fails failed fail failing refuses refused declines declined doubt doubtful hardly barely rather instead
ceased gone disappeared cleared resolves resolving subsided stopped discontinued prevented avoid avoided devoid void
couldn wouldn shouldn won mustn excluding lacked absences refusal
normal abnormal normally abnormally abnormality abnormalities increased decreased increase decrease elevated reduced
high low stable unstable benign malignant better worse improved worsened improving worsening acute chronic
left right lt rt bilateral bilaterally unilateral unilaterally leftward rightward both medial medially lateral
laterally anterior anteriorly posterior posteriorly proximal proximally distal distally upper
lower superior superiorly inferior inferiorly
"""
_SPANISH: Final = """
dra sr sra srta
no ni sin nunca niega niegan negado ausente ausencia negativo negativa negativos negativas
descarta descartado descartada
ningún ninguno ninguna tampoco positivo positiva presente resuelto
normal anormal aumentado aumentada disminuido disminuida elevado elevada bajo baja alto alta estable inestable
benigno benigna maligno maligna agudo aguda crónico crónica mejor peor
izquierdo izquierda derecho derecha bilateral unilateral ambos ambas superior inferior anterior posterior lateral medial
"""

POLARITY: Final = frozenset((_ENGLISH + _SPANISH).split())
"""Folded but for accents; English and Spanish together, since notes mix them."""
