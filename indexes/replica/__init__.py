"""The parts of a replica around its index: log follower, snapshots and sharding."""
