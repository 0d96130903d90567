"""The Schema Registry: its client, the ids it gave, and what waits for it."""
