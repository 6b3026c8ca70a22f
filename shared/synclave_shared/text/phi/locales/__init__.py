"""The languages that detection speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synclave_shared.errors import ConfigurationError
from synclave_shared.text.phi.locales.english import ENGLISH
from synclave_shared.text.phi.locales.spanish import SPANISH

if TYPE_CHECKING:
    from synclave_shared.text.phi.locale import Locale

__all__ = ["LOCALES", "locale_for"]

LOCALES: dict[str, Locale] = {locale.code: locale for locale in (ENGLISH, SPANISH)}


def locale_for(code: str) -> Locale:
    """The locale of a BCP 47 code; ``en-GB`` is read by ``en``.

    Raises:
        ConfigurationError: if there is none.
    """
    locale = LOCALES.get(code) or LOCALES.get(code.split("-")[0].split("_")[0].lower())
    if locale is None:
        raise ConfigurationError(
            expected=f"a language among {', '.join(sorted(LOCALES))}",
            found=repr(code),
            remedy="Name one of them, or add a file to synclave_shared/text/phi/locales.",
        )
    return locale
