"""The append-only, witnessed record of what was done: entries, Merkle tree, checkpoints and their verification."""
