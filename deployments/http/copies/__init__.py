"""Routes that say how pictures relate: comparison, import check, tombstones."""
