"""A whole study on one machine, by the same turns as in deployment."""
