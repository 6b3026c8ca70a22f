"""What every room of Synclave shares: plans, privacy accounting, the ledger, data and models.

This package knows neither :mod:`synclave_client` nor :mod:`synclave_server`. Its parts ``plan``, ``protocol``,
``privacy``, ``ledger`` and ``audit`` import neither torch nor flwr, so that an auditor can install them alone.
"""

__version__ = "0.1.0"
