"""The control channel's definition, and its generated stubs."""
