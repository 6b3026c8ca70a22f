"""``python -m synclave_client.vault``: start the vault."""

from synclave_client.vault.service import leave, main

if __name__ == "__main__":
    leave(main())
