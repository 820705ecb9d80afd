"""The command `guilder`: mounts what the other rooms offer, and holds no logic."""
