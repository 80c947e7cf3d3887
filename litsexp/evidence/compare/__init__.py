"""Two studies side by side: what differs between them, what changed in their results, and whether it matters."""
