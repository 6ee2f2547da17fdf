"""What every room may import and what imports no room: errors, durable files, log lines and counts."""
