"""The aggregation server: asks sites for turns, sums them, remembers the model."""

import guilder_shared  # noqa: F401  # before Flower: switches its telemetry off
