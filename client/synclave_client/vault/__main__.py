"""``python -m synclave_client.vault``: start the vault."""

import logging
import os

from synclave_client.vault.service import main

status = main()
logging.shutdown()
# Not sys.exit: it would wait for a training that was cut off. The journal is made for that, at any instant.
os._exit(status)
