"""What an operator's computer runs: calls to the server, and why they fail."""
