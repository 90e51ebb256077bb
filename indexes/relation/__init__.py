"""The relation of two pictures: the same, edited, a part, a shared element, or only alike."""
