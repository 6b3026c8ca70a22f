"""What the coordinator runs: rounds, the ledger notary, sampling of synthetic patients and evaluation."""
