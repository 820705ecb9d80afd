"""What server and client both need: studies, messages, private training, the ledger."""
