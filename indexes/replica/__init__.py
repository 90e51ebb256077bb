"""What a replica does around an index: follow the log, save snapshots, answer for a shard."""
