"""Clipped sums of per-patient gradients: the private heart of training. See :mod:`.engine` for what is guaranteed."""

from synclave_client.training.private.batch import PatientBatch
from synclave_client.training.private.engine import PatientGradients
from synclave_client.training.private.rules import check_network
from synclave_client.training.private.self_test import SelfTestReport, check_places, self_test

__all__ = ["PatientBatch", "PatientGradients", "SelfTestReport", "check_network", "check_places", "self_test"]
