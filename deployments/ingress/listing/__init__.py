"""What the rows of images say: filters on them, hits folded by content, and how both are shown."""
