"""What server and client both need: studies, messages, private training, the ledger."""

import os

# Flower reads these when it is imported: no telemetry, no look for newer versions.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
