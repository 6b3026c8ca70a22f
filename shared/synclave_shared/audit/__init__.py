"""``synclave-audit`` and the frame that all command lines share; needs neither torch nor flwr."""
