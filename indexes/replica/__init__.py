"""What a replica does around its index: follow the log, save snapshots, answer for a shard."""
