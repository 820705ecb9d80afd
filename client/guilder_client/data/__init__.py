"""A site's own sources: rows are read here, and only when a turn asks for them."""
