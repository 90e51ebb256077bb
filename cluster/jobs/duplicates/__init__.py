"""The job that finds duplicates among the stored images."""
