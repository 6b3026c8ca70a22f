"""What the data steward writes down once: ``site.toml``.

It holds no secret. The key and the journal are in ``state_folder``, which only the vault may read.
"""

from __future__ import annotations

import json
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from synclave_client.performance import Performance
from synclave_client.socket_path import MAX_SOCKET_PATH_BYTES
from synclave_shared.canonical import ExactDecimal, FrozenModel, decimal_text
from synclave_shared.errors import ConfigurationError
from synclave_shared.plan import Name, PublicKeyText, explain_validation
from synclave_shared.privacy.budget import Budget

__all__ = ["CoordinatorAddress", "SitePolicy", "SiteSettings"]

_PATHS: Final = (
    "data_folder",
    "schema_file",
    "state_folder",
    "socket_path",
    "root_certificate",
    "models_folder",
    "rules_file",
    "shared_patients",
)


class SitePolicy(FrozenModel):
    """What the site takes part in, whatever a plan asks for.

    Attributes:
        modalities: kinds of data that may be used.
        trust_modes: trust modes that are allowed.
        minimum_noise_multiplier: floor for every noise multiplier of a plan (std / clip_norm, dimensionless).
    """

    modalities: Annotated[tuple[Literal["codes", "series", "notes"], ...], Field(min_length=1)] = (
        "codes",
        "series",
        "notes",
    )
    trust_modes: Annotated[tuple[Literal["local"], ...], Field(min_length=1)] = ("local",)
    minimum_noise_multiplier: Annotated[ExactDecimal, Field(ge=0, le=1000)] = Decimal("0.3")


class CoordinatorAddress(FrozenModel):
    """How the gateway reaches the coordinator; of no concern to the vault.

    Attributes:
        superlink: the coordinator's public address, ``host:port``.
        root_certificate: PEM file with the authority that signed its certificate.
        state_folder: the gateway's own folder, for its node key and logs; the gateway's user must own it.
    """

    superlink: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_\[\]-]{1,253}:[0-9]{1,5}$")]
    root_certificate: Path
    state_folder: Path


class SiteSettings(FrozenModel):
    """One hospital's installation.

    Relative paths in the file are taken from the folder that the file is in; in this object they are absolute.

    Attributes:
        name: the site's name in plans and ledgers.
        coordinator_key: the only coordinator whose plans are considered (Ed25519, base64), pinned at installation.
        dataset: name of the data set whose patients the budget protects. All spends on it are composed.
        data_folder: the patients' tables; read by the vault only.
        schema_file: the installed schema (TOML).
        state_folder: key and journal of the vault.
        key: names the signing key if it is elsewhere: ``file:PATH`` (absolute) or ``env:NAME``.
        socket_path: the Unix socket at which the vault answers the gateway.
        gateway_group: group that may connect to the socket; None if gateway and vault run as the same user.
        models_folder: where published language models lie, each in the folder that plans name; None: notes are trained
            with the embedded one alone.
        rules_file: the site's own rules for finding identifiers in notes; None: none.
        shared_patients: CSV file of patients who are treated at other sites too, and at how many; None: of none that is
            known. They contribute less.
        device: torch device of the training.
        performance: how to compute on it; changes cost only.
        budget: what all trainings together may spend on ``dataset``.
        policy: what else a plan must satisfy.
        gateway: where the gateway connects; None if this installation runs the vault only.
    """

    name: Name
    coordinator_key: PublicKeyText
    dataset: Name
    data_folder: Path
    schema_file: Path
    state_folder: Path
    key: Annotated[str, Field(pattern=r"^(file:/.+|env:[A-Za-z_][A-Za-z0-9_]*|pkcs11:.+)$")] | None = None
    socket_path: Path
    gateway_group: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$|^[0-9]{1,10}$")] | None = None
    models_folder: Path | None = None
    rules_file: Path | None = None
    shared_patients: Path | None = None
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:[0-9]{1,2})?)$")] = "cpu"
    budget: Budget
    policy: SitePolicy = SitePolicy()
    performance: Performance = Performance()
    gateway: CoordinatorAddress | None = None

    @field_validator("socket_path")
    @classmethod
    def _short(cls, path: Path) -> Path:
        if len(str(path).encode()) > MAX_SOCKET_PATH_BYTES:
            raise ValueError(f"a Unix socket's path has at most {MAX_SOCKET_PATH_BYTES} bytes; choose a shorter one")
        return path

    @model_validator(mode="after")
    def _apart(self) -> Self:
        data, state = self.data_folder.resolve(), self.state_folder.resolve()
        if data == state or data in state.parents or state in data.parents:
            raise ValueError("data_folder and state_folder must lie apart: the one is read, the other written")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read ``site.toml``.

        Raises:
            ConfigurationError: if the file is missing, is not TOML, or a setting is missing, unknown or out of range.
        """
        remedy = "Correct the file, or write a new one with `synclave-site init`."
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        except FileNotFoundError:
            raise ConfigurationError(
                expected="a site's settings file", found=f"nothing at {path}", remedy=remedy
            ) from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(expected="a TOML file", found=f"{path}: {error}", remedy=remedy) from None
        base = path.resolve().parent
        for section in (raw, raw.get("gateway")):
            if isinstance(section, dict):
                section.update(
                    {name: str(base / section[name]) for name in _PATHS if isinstance(section.get(name), str)}
                )
        return cls.of(str(path), raw)

    @classmethod
    def of(cls, source: str, values: dict[str, Any]) -> Self:
        """Settings from plain values; ``source`` says in an error where they are from.

        Raises:
            ConfigurationError: if a setting is missing, unknown or out of range.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigurationError(
                expected="the settings of a site",
                found=f"{source}: {explain_validation(error)}",
                remedy="Correct what is named; docs and `synclave-site init --help` describe each setting.",
            ) from None

    def to_toml(self) -> str:
        """The settings as a commented TOML file that :meth:`load` reads back to an equal object."""

        def text(value: object) -> str:
            return json.dumps(str(value), ensure_ascii=False)

        def texts(values: tuple[str, ...]) -> str:
            return "[" + ", ".join(text(value) for value in values) + "]"

        group = "" if self.gateway_group is None else f"gateway_group = {text(self.gateway_group)}\n"
        models = "" if self.models_folder is None else f"models_folder = {text(self.models_folder)}\n"
        shared = "" if self.shared_patients is None else f"shared_patients = {text(self.shared_patients)}\n"
        rules = "" if self.rules_file is None else f"rules_file = {text(self.rules_file)}\n"
        gateway = (
            ""
            if self.gateway is None
            else (
                "\n[gateway]\n"
                f"superlink = {text(self.gateway.superlink)}\n"
                f"root_certificate = {text(self.gateway.root_certificate)}\n"
                f"state_folder = {text(self.gateway.state_folder)}\n"
            )
        )
        key = "" if self.key is None else f"key = {text(self.key)}\n"
        return (
            "# Settings of a Synclave site. No secret is in here; the key and the journal are in state_folder.\n"
            f"name = {text(self.name)}\n"
            "# The only coordinator whose plans this site considers.\n"
            f"coordinator_key = {text(self.coordinator_key)}\n"
            f"dataset = {text(self.dataset)}\n"
            f"data_folder = {text(self.data_folder)}\n"
            f"schema_file = {text(self.schema_file)}\n"
            f"state_folder = {text(self.state_folder)}\n"
            f"{key}"
            f"socket_path = {text(self.socket_path)}\n"
            f"{group}"
            f"{models}{rules}{shared}"
            f"device = {text(self.device)}\n"
            "\n# What all trainings together may ever spend on this data set.\n"
            "[budget]\n"
            f"epsilon = {text(decimal_text(self.budget.epsilon))}\n"
            f"delta = {text(decimal_text(self.budget.delta))}\n"
            "\n[policy]\n"
            f"modalities = {texts(self.policy.modalities)}\n"
            f"trust_modes = {texts(self.policy.trust_modes)}\n"
            f"minimum_noise_multiplier = {text(decimal_text(self.policy.minimum_noise_multiplier))}\n"
            "\n# How to compute: changes cost, never what is promised.\n"
            "[performance]\n"
            f"clipping = {text(self.performance.clipping)}\n"
            f"precision = {text(self.performance.precision)}\n"
            f"patients_at_once = {self.performance.patients_at_once}\n"
            f"{gateway}"
        )

    @property
    def key_file(self) -> Path:
        """Where the site's Ed25519 signing key is, mode 0600, unless :attr:`key` names another place."""
        return self.state_folder / "site.key"

    @property
    def key_name(self) -> str:
        """Names the site's signing key."""
        return self.key or f"file:{self.key_file}"

    @property
    def rewrite_key_file(self) -> Path:
        """The secret from which surrogates in rewritten notes come, mode 0600; made when it is needed first."""
        return self.state_folder / "rewrite.key"

    @property
    def marks_file(self) -> Path:
        """The secret under which the journal knows patients, mode 0600; made when it is needed first."""
        return self.state_folder / "patients.key"

    @property
    def journal_file(self) -> Path:
        """The SQLite journal."""
        return self.state_folder / "journal.sqlite"

    @property
    def conformance_folder(self) -> Path:
        """What each training at this site really did, by measurement; patient-derived, and never sent."""
        return self.state_folder / "conformance"

    @property
    def pause_file(self) -> Path:
        """While this file exists the vault refuses plans and rounds."""
        return self.state_folder / "paused"
