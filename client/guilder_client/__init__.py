"""One institution: its policy, its turns, its connection outwards."""

import guilder_shared  # noqa: F401  # before Flower: switches its telemetry off
